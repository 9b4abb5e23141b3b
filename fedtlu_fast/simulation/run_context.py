"""What a callback gets: how the run stands, and what it can do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from sys import float_info
from typing import Any

from torch import Tensor

from fedtlu_fast.errors import InputError, check_kind
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.runs.control import Control
from fedtlu_fast.runs.results import BestModel, RunResult
from fedtlu_fast.selection.quota import Keep, quotas
from fedtlu_fast.tasks.metrics import Better


@dataclass(frozen=True)
class ClientEnd:
    """What became of one client of a cohort.

    Attributes:
        client: its number.
        samples: how many it trained on; 0 when it failed.
        loss: its mean training loss; None when it failed, or when the loss is no number.
        accepted: whether its change was averaged in.
        failed: why it could not be trained; None when it was.
    """

    client: int
    samples: int
    loss: float | None
    accepted: bool
    failed: str | None = None


@dataclass
class RunContext:
    """How a run stands. The run sets the attributes; callbacks read them, and act through the methods.

    Attributes:
        layout: of the model's parameters.
        settings: all settings of the run, nested as in config.yaml.
        figures: for each figure in a row of metrics.jsonl that can be compared, whether lower or higher
            values are better.
        rounds: how many rounds the run has, if nothing stops it.
        every: the global test is due every so many rounds.
        out: the run's directory; None when it writes nothing.
        server_lr: factor on the server's step.
        keep: blocks kept per group, as in the setting `selection.keep`; None where no block is chosen.
        round: the number of the round under way; between rounds, of the last round done.
        rows: rows of metrics.jsonl of all rounds done.
        choices: rows of selection.jsonl, likewise.
        row: the row of the round under way, once it has trained and was tested; None before.
        choice: the row of selection.jsonl of the round under way, likewise.
        client: in `on_client_end`, what became of the client; None elsewhere.
        best: the model that was kept as the best; None when there is none.
        stopped: why the run ends early; None when it does not.
        result: in `on_end`, what the run leaves; None before.
    """

    layout: ParameterLayout
    settings: Mapping[str, Any]
    figures: Mapping[str, Better]
    rounds: int
    every: int
    out: Path | None
    server_lr: float
    keep: Keep | None
    rows: list[dict[str, Any]]
    choices: list[dict[str, Any]]
    _params: Tensor = field(repr=False)
    round: int = 0
    row: dict[str, Any] | None = None
    choice: dict[str, Any] | None = None
    client: ClientEnd | None = None
    best: BestModel | None = None
    stopped: str | None = None
    result: RunResult | None = None
    control: Control = field(default_factory=Control, repr=False)
    _save: bool = field(default=False, repr=False)
    _candidate: Callable[[str, float], BestModel] | None = field(default=None, repr=False)
    _actor: str = field(default="", repr=False)
    _shown: dict[str, Any] = field(default_factory=dict, repr=False)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuses what a callback sets: only the methods act on the run.

        Raises:
            InputError: a callback is being called.
        """
        if getattr(self, "_actor", "") and not name.startswith("_"):
            method = f"set_{name}" if hasattr(self, f"set_{name}") else "its methods"
            raise InputError(
                f"run.{name}", value, "nothing: callbacks read it", f"To act on the run, use {method}."
            )
        object.__setattr__(self, name, value)

    def _put(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def params(self) -> Tensor:
        """Returns the global parameters [P] float32 after the last round done.

        They are a copy, so that changing them does not change the run; each access costs P numbers.
        """
        return self._params.clone()

    @property
    def tests(self) -> list[dict[str, Any]]:
        """Rows of the rounds done whose global test was due."""
        return [row for row in self.rows if self.is_due(row["round"])]

    @property
    def this_row(self) -> dict[str, Any]:
        """The row of the round under way.

        Raises:
            InputError: the round has not trained yet.
        """
        if self.row is None:
            expected = (
                "a hook that is called when the round has trained: on_client_end, on_evaluate, on_round_end"
            )
            raise InputError("row", None, expected)
        return self.row

    def is_due(self, index: int) -> bool:
        """Whether the global test is due after a round."""
        return index % self.every == 0

    def stop(self, reason: str) -> None:
        """Makes the round under way the last. The summary has the reason, under ``stopped``.

        A stopped run is finished: resuming it trains nothing, also when it is given more rounds.

        Args:
            reason: a sentence for people.

        Raises:
            InputError: it is no string.
        """
        check_kind("stop", reason, str, "the reason, a string")
        self._put(stopped=reason)
        self._change(stopped=reason)

    def set_server_lr(self, value: float) -> None:
        """Changes the factor on the server's step, from the next round that begins.

        Raises:
            InputError: it is not a finite number above 0.
        """
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise InputError("server_lr", value, "a finite number above 0")
        self._put(server_lr=float(value))
        self._change(server_lr=self.server_lr)

    def set_keep(self, value: Keep) -> None:
        """Changes how many blocks of each group are kept, from the next round that begins.

        Args:
            value: as in the setting `selection.keep`: a number of blocks, a fraction, or {group: either}.

        Raises:
            InputError: the groups cannot give so many, or this run chooses no blocks.
        """
        if self.keep is None:
            raise InputError("keep", value, "a run whose selector chooses blocks; this one's is full")
        quotas(self.layout, value)  # refuses what does not fit
        self._put(keep=dict(value) if isinstance(value, Mapping) else value)
        self._change(keep=self.keep)

    def log(self, **values: float) -> None:
        """Adds numbers to this round's row of metrics.jsonl, under these names.

        Raises:
            InputError: the row has such a name already, a value is no number, or the round has not trained
                yet.
        """
        row = self.this_row
        for name, value in values.items():
            if name in row:
                raise InputError("log", name, "a name that the row of metrics.jsonl does not have yet")
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"log({name}=...)", value, "a number", "Use float(...) on a tensor.")
            if isinstance(value, int) and abs(value) > float_info.max:
                raise InputError(f"log({name}=...)", value, "a number that fits a float64")
            row[name] = value if isfinite(value) else None
            self._shown[name] = row[name]

    def save(self) -> None:
        """Has a checkpoint written as soon as this round's rows are; nothing where there is no directory."""
        self._save = True

    def keep_as_best(self, metric: str, value: float) -> None:
        """Keeps the model after this round as the best of the run.

        Args:
            metric: the key in metrics.jsonl that it was chosen by.
            value: what it has there.

        Raises:
            InputError: the round has not trained yet, the metric is no string, or the value no finite number.
        """
        check_kind("keep_as_best(metric)", metric, str, "the name of a figure, a string")
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= float_info.max:
            raise InputError("keep_as_best(value)", value, "a finite number", "Use float(...) on a tensor.")
        if self._candidate is None:
            raise InputError("keep_as_best", metric, "a call in on_evaluate or on_round_end")
        self._put(best=self._candidate(metric, value))

    def take(self, index: int, params: Tensor, control: Control, best: BestModel | None) -> None:
        """Goes on from a checkpoint; called by the run.

        Args:
            index: rounds done.
            params: [P], the global parameters after it.
            control: what callbacks have changed before.
            best: the best model so far.
        """
        self.round, self._params, self.control, self.best = index, params, control, best
        self.stopped = control.stopped
        if control.server_lr is not None:
            self.server_lr = control.server_lr
        if control.keep is not None:
            self.keep = control.keep

    def begin(self, index: int) -> None:
        """Begins a round; called by the run."""
        self.round, self.row, self.choice, self._candidate = index, None, None, None

    def trained(
        self,
        row: dict[str, Any],
        choice: dict[str, Any],
        params: Tensor,
        candidate: Callable[[str, float], BestModel],
    ) -> None:
        """The round has trained and was tested; called by the run."""
        self.row, self.choice, self._params, self._candidate = row, choice, params, candidate

    def wants_save(self) -> bool:
        """Whether a callback has asked for a checkpoint, which is then forgotten; called by the run."""
        wanted, self._save = self._save, False
        return wanted

    @contextmanager
    def acting(self, name: str) -> Iterator[None]:
        """Inside, changes are those of the callback of this name.

        Raises:
            InputError: it has changed a row otherwise than by `log`.
        """
        self._actor, self._shown = name, dict(self.row or {})
        choice = dict(self.choice or {})
        try:
            yield
        finally:
            self._actor = ""
        for what, now, before in (("row", self.row, self._shown), ("choice", self.choice, choice)):
            here = now or {}
            for key in here.keys() | before.keys():
                if key not in here or key not in before or here[key] is not before[key]:
                    given = f"another {key!r} from {name}"
                    fix = "run.log(name=number) adds a number to the row."
                    raise InputError(f"run.{what}", given, "nothing: callbacks read it", fix)

    def _change(self, **changes: Any) -> None:
        names = [*self.control.callbacks, self._actor]
        callbacks = list(dict.fromkeys(name for name in names if name))
        self._put(control=self.control.model_copy(update={**changes, "callbacks": callbacks}))
