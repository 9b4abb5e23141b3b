"""The columns of all tables, and the labels of pictures: what figures are called and how they are shown.

A figure of a user's own has no line here: its column follows from its name.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedtlu_fast.tasks.metrics import Better

BY_SIZE = ""
"""A format: one decimal below 1000, none from there on."""


@dataclass(frozen=True)
class Column:
    """One figure of runs or rounds.

    Attributes:
        key: its name in summaries, logs and rows.
        title: what tables and pictures call it.
        form: how a number is formatted, such as ``.2f``, or `BY_SIZE`.
        scale: what a number is multiplied by to be shown.
        unit: of what is shown; empty for none.
        better: whether lower or higher numbers are better; None for what is neither.
        spread: whether tables show the standard deviation over runs.
        short: the title in tables of many columns; empty for `title`.
        steady: whether tables of many columns leave the standard deviation out.
    """

    key: str
    title: str
    form: str = ".2f"
    scale: float = 1.0
    unit: str = ""
    better: Better | None = None
    spread: bool = True
    short: str = ""
    steady: bool = False

    def head(self, narrow: bool = False) -> str:
        """The head of its column.

        Args:
            narrow: in a table of many columns, where the head has the unit, and not every cell.
        """
        if not narrow:
            return self.title
        return f"{self.short or self.title}, {self.unit}" if self.unit else self.short or self.title

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
            form = ",.1f" if abs(value * self.scale) < 1000 else ",.0f"
        unit = "%" if self.unit == "%" and not narrow else ""
        text = f"{value * self.scale:{form}}{unit}"
        if spread is None or not self.spread or (narrow and self.steady):
            return text
        return f"{text} ± {spread * self.scale:{form.lstrip('+')}}"


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
        Column("malicious_updates", "malicious updates", ",.0f", spread=False),
        Column("seconds", "seconds in rounds", BY_SIZE, better="lower", short="rounds, seconds", steady=True),
        Column("agreement", "agreement", ".3f"),
    )
}


def column_of(key: str) -> Column:
    """The column of a key; of a figure of the user's own: ``test_rouge_l`` is ``global rouge l``."""
    if key in COLUMNS:
        return COLUMNS[key]
    test, _, figure = key.partition("_")
    return Column(key, f"{'global' if test == 'test' else test} {figure.replace('_', ' ')}", ".4g")
