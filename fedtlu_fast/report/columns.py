"""The columns of all tables, and the labels of pictures: what figures are called and how they are shown.

A column of your own is a `Column` too; `own_columns` finds the columns that a report is asked for. A metric
of your own task has no line here: its column follows from its name.
"""

from __future__ import annotations

from collections.abc import Callable
from math import floor, log10
from typing import Any

from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part
from fedtlu_fast.tasks.metrics import Better

BY_SIZE = ""
"""A format: no decimals from 1,000 on, one from 0.1 on, else two significant digits."""


@part
class Column:
    """One figure of runs or rounds.

    Attributes:
        key: its name in summaries, logs and rows of tables.
        title: what tables and pictures call it; empty for a title that follows from the key.
        form: how a number is formatted, such as ``.2f``, or `BY_SIZE`.
        scale: what a number is multiplied by to be shown.
        unit: of what is shown; empty for none.
        better: whether lower or higher numbers are better; None for what is neither.
        spread: whether tables show the standard deviation over runs.
        short: the title in tables of many columns; empty for `title`.
        steady: whether tables of many columns leave the standard deviation out.
        figure: a function that gets a finished run and gives the number. Of the run it sees the content of
            summary.json (``run.summary``) and the rows of metrics.jsonl and selection.jsonl (``run.metrics``,
            ``run.selection``). None: the number is what the summary, or else the last row of metrics.jsonl
            with such an entry, has under `key`.
    """

    key: str
    title: str = ""
    form: str = ".2f"
    scale: float = 1.0
    unit: str = ""
    better: Better | None = None
    spread: bool = True
    short: str = ""
    steady: bool = False
    figure: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        if not self.key:
            raise InputError("key", self.key, "a name, such as bytes_per_point")
        if not self.title:
            object.__setattr__(self, "title", title_of(self.key))
        try:
            format(1.0, self.form)
        except ValueError as error:
            raise InputError("form", self.form, f"a format of a number, such as .2f; {error}") from None

    @property
    def label(self) -> str:
        """The title with its unit and direction, such as ``MB up (lower is better)``."""
        unit = f", {self.unit}" if self.unit else ""
        return f"{self.title}{unit}" + (f" ({self.better} is better)" if self.better else "")

    def head(self, narrow: bool = False) -> str:
        """The head of its column.

        Args:
            narrow: in a table of many columns, where the head says per cent, and not every cell.
        """
        title = (narrow and self.short) or self.title
        in_cells = self.unit == "%" and not narrow
        return title if in_cells or not self.unit else f"{title}, {self.unit}"

    def cell(self, value: float | None, spread: float | None = None, narrow: bool = False) -> str:
        """A number as tables show it, with its standard deviation where the column has one.

        Args:
            value: None is shown as a dash.
            spread: the standard deviation; None where it is not known.
            narrow: see `head`.
        """
        if value is None:
            return "-"
        form = self.form
        if form == BY_SIZE:
            form = _form_by_size(abs(value * self.scale))
        unit = "%" if self.unit == "%" and not narrow else ""
        text = f"{value * self.scale:{form}}{unit}"
        if spread is None or not self.spread or (narrow and self.steady):
            return text
        return f"{text} ± {spread * self.scale:{form.lstrip('+')}}"


def _form_by_size(size: float) -> str:
    """Returns a format: no decimals from 1,000 on, one from 0.1 on, else two significant digits."""
    if size >= 1000:
        return ",.0f"
    return f".{1 - floor(log10(size))}f" if 0 < size < 0.1 else ",.1f"


GAIN = "gain over random", "+z.2f"
"""Title and format of gains; no sign stands before a zero."""
COLUMNS = {
    column.key: column
    for column in (
        Column("test_accuracy", "global acc", scale=100, unit="%", better="higher"),
        Column("accuracy_gain_points", *GAIN, unit="points", better="higher", short="over random"),
        Column("local_accuracy", "local acc", scale=100, unit="%", better="higher"),
        Column("test_macro_f1", "mean F1", ".3f", better="higher"),
        Column("test_perplexity", "global ppl", better="lower"),
        Column("gain_over_random_points", *GAIN, unit="points", better="higher", short="over random"),
        Column("gain_over_random_pct", *GAIN, unit="%", better="higher", short="over random"),
        Column("local_perplexity", "local ppl", better="lower"),
        Column("trained_local_perplexity", "local ppl, trained", better="lower"),
        Column("updated_share", "updated", ".1f", 100, "%", "lower", spread=False),
        Column("bytes_published", "MB published", BY_SIZE, 1e-6, better="lower", spread=False),
        Column("bytes_up", "MB up", BY_SIZE, 1e-6, better="lower", spread=False),
        Column("bytes_down", "MB down", BY_SIZE, 1e-6, better="lower", spread=False),
        Column("forward_flops", "GFLOP forward", BY_SIZE, 1e-9, better="lower", spread=False),
        Column("backward_flops", "GFLOP backward", BY_SIZE, 1e-9, better="lower", spread=False),
        Column("flops", "GFLOP", BY_SIZE, 1e-9, better="lower", spread=False),
        Column("probe_share", "FLOP in probes", ".1f", 100, "%", "lower", spread=False),
        Column("epsilon", "epsilon", better="lower", spread=False),
        Column("malicious_updates", "malicious updates", ",.0f", spread=False),
        Column("seconds", "seconds in rounds", BY_SIZE, better="lower", short="rounds, seconds", steady=True),
        Column("agreement", "agreement", ".3f"),
        Column("selection_share", "parameters with a choice", ".0f", 100, "%", spread=False),
        Column("client_selection_share", "parameters with a choice, clients", ".0f", 100, "%", spread=False),
    )
}


def column_of(key: str) -> Column:
    """Returns the column of any key; without a line in `COLUMNS`, its title follows from the key."""
    return COLUMNS[key] if key in COLUMNS else Column(key, form=".4g")


def title_of(key: str) -> str:
    """Returns the title that follows from a key: ``global rouge l`` for ``test_rouge_l``."""
    begin, _, rest = key.partition("_")
    return f"global {rest.replace('_', ' ')}" if begin == "test" and rest else key.replace("_", " ")
