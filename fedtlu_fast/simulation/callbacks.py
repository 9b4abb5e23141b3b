"""Callbacks: code of yours, or ours, that a run calls at its moments, and that can act on it.

A run calls callbacks in its own process, in the caller's state of PyTorch, in the order in which they were
given. What a callback changes through its context is part of every checkpoint: a run that is killed and
resumed with the same callbacks ends with the same bits, as long as what a callback does follows from what its
context shows, and not from a clock or from a memory of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from fedtlu_fast.errors import InputError, nearest
from fedtlu_fast.simulation.run_context import RunContext
from fedtlu_fast.tasks.metrics import Better
from fedtlu_fast.torch_state import callers_state
from fedtlu_fast.unchanged import unchanged

logger = logging.getLogger("fedtlu_fast")


class Callback:
    """The base of all callbacks: hooks that do nothing. Override those that you need.

    Every hook gets the same `RunContext`, which says how the run stands and offers actions.
    """

    def on_start(self, run: RunContext) -> None:
        """Called before the first round of this process, also of a run that is resumed.

        A run that is resumed calls it again: do not make a change here that must happen once only.
        """

    def on_round_start(self, run: RunContext) -> None:
        """Called before a round; `RunContext.round` is its number. Changes hold for this round."""

    def on_client_end(self, run: RunContext) -> None:
        """Called for each client of the cohort, in the cohort's order, once all of them have trained."""

    def on_evaluate(self, run: RunContext) -> None:
        """Called after a global test that was due (every `evaluation.every` rounds)."""

    def on_round_end(self, run: RunContext) -> None:
        """Called after a round, before its rows are written. Changes hold from the next round on."""

    def on_checkpoint(self, run: RunContext) -> None:
        """Called after a checkpoint was written."""

    def on_end(self, run: RunContext) -> None:
        """Called when the summary has been written; `RunContext.result` is the run's result."""

    def on_close(self, run: RunContext) -> None:
        """Called last, also after an error or a Ctrl-C that ended the run before its summary.

        Close here what `on_start` has opened; `on_start` may not have been called.
        """


Observer = Callable[[dict[str, Any]], object]
"""A function that gets each round's row of metrics.jsonl, after the round was written. It cannot act."""


class Callbacks:
    """All callbacks of a run, called one after another."""

    def __init__(self, given: Sequence[Callback | Observer], context: RunContext) -> None:
        """Sorts them.

        Args:
            given: callbacks and plain functions.
            context: what the callbacks get.

        Raises:
            InputError: one is neither a `Callback` nor a function, or two of them keep a best model.
        """
        for one in given:
            if isinstance(one, type) or not (isinstance(one, Callback) or callable(one)):
                expected = "objects of subclasses of Callback, or functions that take a row of metrics.jsonl"
                raise InputError("callbacks", one, expected)
        self._acting = [one for one in given if isinstance(one, Callback)]
        for one in self._acting:
            _check_hooks(type(one))
        self._observers = [one for one in given if not isinstance(one, Callback)]
        if sum(isinstance(one, SaveBest) for one in self._acting) > 1:
            expected = "at most one: a run keeps one best model"
            raise InputError(
                "callbacks", "two of SaveBest", expected, "Leave one out (checkpoint.best is one)."
            )
        self.context = context

    def call(self, hook: str) -> None:
        """Calls one hook of every callback.

        Args:
            hook: its name, such as ``on_round_end``.
        """
        if not (own := self.listen(hook)):
            return
        with callers_state():
            for one in own:
                given = {"run.layout.offsets": self.context.layout.offsets}
                with self.context.acting(name_of(one)), unchanged("callbacks", one, hook, given):
                    getattr(one, hook)(self.context)

    def listen(self, hook: str) -> list[Callback]:
        """The callbacks that have such a hook of their own."""
        return [one for one in self._acting if getattr(type(one), hook) is not getattr(Callback, hook)]

    def show(self, row: dict[str, Any]) -> None:
        """Calls the plain functions with a round's row."""
        if self._observers:
            with callers_state():
                for observer in self._observers:
                    observer(dict(row))

    def warn_of_missing(self, names: Sequence[str]) -> None:
        """Warns when callbacks of these names have changed the run and are not among these here."""
        here = {name_of(one) for one in self._acting}
        if missing := [name for name in names if name not in here]:
            logger.warning(
                "callbacks that have changed this run were not given again: %s. It goes on with their "
                "changes, and without them",
                ", ".join(missing),
            )


def _check_hooks(kind: type[Callback]) -> None:
    """Refuses methods that look like hooks and would never be called."""
    known = [name for name in vars(Callback) if name.startswith("on_")]
    for name in dir(kind):
        if name.startswith("on_") and name not in known:
            expected = f"hooks of the names {', '.join(known)}"
            raise InputError("callbacks", f"{kind.__name__}.{name}", expected, near=nearest(name, known))


class _Watch:
    """The best value of a figure among the tests seen so far.

    Attributes:
        metric: a key of the rows in metrics.jsonl.
        best: its best value; None before the first.
    """

    def __init__(self, metric: str, better: Better | None, least: float = 0.0) -> None:
        self.metric, self._better, self._least = metric, better, least
        self.best: float | None = None

    def settle(self, run: RunContext) -> None:
        """Finds out whether lower or higher values are better.

        Raises:
            InputError: nobody says, or the figure does not exist.
        """
        if self._better is None:
            known = run.figures.get(self.metric)
            if known is None:
                expected = f"a figure that this run knows how to compare ({', '.join(sorted(run.figures))})"
                fix = "For a figure that callbacks log, say better='lower' or better='higher'."
                raise InputError("metric", self.metric, expected, fix, near=nearest(self.metric, run.figures))
            self._better = known

    def improves(self, row: dict[str, Any]) -> bool | None:
        """Whether a row has a new best value, which is then `best`; None where it has no value."""
        value = row.get(self.metric)
        if value is None:
            return None
        gain = None if self.best is None else (value - self.best) * (1 if self._better == "higher" else -1)
        if gain is not None and gain <= self._least:
            return False
        self.best = float(value)
        return True


class EarlyStopping(Callback):
    """Ends the run when a figure of the global test has not improved for some tests.

    Tests during the warm-up do not count, nor does the extra test that the last round may have. What was seen
    follows from the run's rows, so that a resumed run goes on as if nothing had happened. A run that was
    stopped stays stopped when it is made longer.

    Attributes:
        metric: the figure, a key of the rows in metrics.jsonl.
    """

    def __init__(
        self,
        metric: str = "test_loss",
        patience: int = 5,
        min_delta: float = 0.0,
        better: Better | None = None,
    ) -> None:
        """Says what is watched.

        Args:
            metric: a key of the rows in metrics.jsonl, such as ``test_accuracy``.
            patience: how many tests in a row may bring no improvement.
            min_delta: an improvement is more than this, 0 or larger.
            better: ``lower`` or ``higher``; None for figures of the run's task, which say so themselves.

        Raises:
            InputError: `patience` or `min_delta` is too small.
        """
        if patience < 1:
            raise InputError("patience", patience, "1 or more tests")
        if not min_delta >= 0:
            raise InputError("min_delta", min_delta, "0 or more")
        self.metric, self._patience, self._given = metric, patience, (metric, better, min_delta)

    def on_start(self, run: RunContext) -> None:
        """Looks at the tests that were made before."""
        self._watch, self._waited, self._at = _Watch(*self._given), 0, 0
        self._watch.settle(run)
        for row in run.tests:
            self._see(row)

    def on_evaluate(self, run: RunContext) -> None:
        """Stops the run when it has waited long enough."""
        if self._see(run.this_row):
            best = f"the best, {self._watch.best:.6g}, was after round {self._at}"
            run.stop(f"{self._watch.metric} has not improved in {self._waited} tests; {best}")

    def _see(self, row: dict[str, Any]) -> bool:
        """Whether this test was one too many."""
        if row["warmup"]:
            return False
        improved = self._watch.improves(row)
        if improved:
            self._waited, self._at = 0, row["round"]
        elif improved is not None:
            self._waited += 1
        return self._waited >= self._patience


class SaveBest(Callback):
    """Keeps the best model of the run: as ``best`` of its result, and in ``checkpoints/best-ROUND``.

    It looks at the tests that are due (`evaluation.every`), so that a run that is made longer keeps what a
    run of that length keeps. Tests whose figure is missing or no number do not count.

    Attributes:
        metric: the figure, a key of the rows in metrics.jsonl.
    """

    def __init__(self, metric: str = "test_loss", better: Better | None = None) -> None:
        """Says what is watched; see `EarlyStopping`."""
        self.metric, self._given = metric, (metric, better)

    def on_start(self, run: RunContext) -> None:
        """Goes on from the best model that the checkpoint names."""
        self._watch = _Watch(*self._given)
        self._watch.settle(run)
        if run.best is not None and run.best.metric == self._watch.metric:
            self._watch.best = run.best.value

    def on_evaluate(self, run: RunContext) -> None:
        """Keeps the model when it is better than all before."""
        if self._watch.improves(run.this_row) and self._watch.best is not None:
            run.keep_as_best(self._watch.metric, self._watch.best)


def name_of(callback: object) -> str:
    """The name by which checkpoints remember a callback: its class's, with the module."""
    kind = type(callback)
    return f"{kind.__module__}:{kind.__qualname__}"
