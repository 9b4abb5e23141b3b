"""The callback that gives a tracker the numbers of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedtlu_fast.config.chooser import Chooser
from fedtlu_fast.errors import InputError
from fedtlu_fast.integrations.trackers.kept import Kept, key_of, read_kept, write_kept
from fedtlu_fast.integrations.trackers.numbers import of_round, of_summary
from fedtlu_fast.integrations.trackers.tracker import FIELD, OpenTracker, TrackedRun, Tracker
from fedtlu_fast.registry import names
from fedtlu_fast.runs.directory import COMPARISON
from fedtlu_fast.runs.settings import flat
from fedtlu_fast.simulation.callbacks import Callback
from fedtlu_fast.simulation.run_context import RunContext

CHOOSER = Chooser("tracker", base=Tracker)


class Track(Callback):
    """Gives a tracker the metrics, block scores and choices of every round, the settings and the summary.

    Give it after callbacks that log numbers of their own, so that it sees these numbers too. A run with a
    directory remembers the tracker's record in trackers.json: a resumed run with the same tracker goes on
    with that record. Rounds that were run without the tracker are logged first.
    """

    def __init__(self, tracker: str | Tracker) -> None:
        """Finds the tracker.

        Args:
            tracker: a name (``tensorboard``, ``wandb``, ``mlflow``, ``trackio``, ``print`` or one that an
                installed package adds), a dotted name (``my_package.trackers:Mine``), either of them with
                values of the first parameters after colons (``wandb:my-project``), or an object.

        Raises:
            InputError: There is no such tracker, its parameters are wrong, or its package is not installed.
        """
        self.tracker = _found(tracker)
        self._key = key_of(CHOOSER.name_of(self.tracker), CHOOSER.values_of(self.tracker))
        self._open: OpenTracker | None = None

    def on_start(self, run: RunContext) -> None:
        """Opens the record, and logs the rounds that it lacks."""
        kept = Kept() if run.out is None else read_kept(run.out, self._key)
        logged = min(kept.logged, run.round)
        self._open = self.tracker.start(_described(run, logged, kept.memory))
        self._keep(run, logged)
        for row, choice in zip(run.rows[logged:], run.choices[logged:], strict=True):
            self._open.log(of_round(row, choice), row["round"])

    def on_round_end(self, run: RunContext) -> None:
        """Logs the round."""
        assert self._open is not None
        assert run.choice is not None
        self._open.log(of_round(run.this_row, run.choice), run.round)

    def on_checkpoint(self, run: RunContext) -> None:
        """Remembers how far the record goes."""
        self._keep(run, run.round)

    def on_end(self, run: RunContext) -> None:
        """Logs the summary and closes the record."""
        assert self._open is not None
        assert run.result is not None
        self._open.finish(of_summary(run.result.summary))
        self._open = None

    def on_close(self, run: RunContext) -> None:
        """Closes the record of a run that was interrupted."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _keep(self, run: RunContext, logged: int) -> None:
        if run.out is not None and self._open is not None:
            write_kept(run.out, self._key, Kept(logged, self._open.memory))


def _found(given: str | Tracker) -> Tracker:
    settings: dict[str, Any] = {FIELD: given}
    if isinstance(given, str):
        settings = CHOOSER.spelled_out(FIELD, given)
    tracker: Any = CHOOSER.read(FIELD, settings.pop(FIELD), settings)
    if not isinstance(tracker, Tracker):
        expected = f"one of {', '.join(names('tracker'))}, or an object of a subclass of {Tracker.__module__}"
        raise InputError(FIELD, given, f"{expected}.{Tracker.__name__}")
    tracker.check()
    return tracker


def _described(run: RunContext, logged: int, memory: Mapping[str, str]) -> TrackedRun:
    settings, group = run.settings, None
    name = f"{settings['selection']['selector']}-seed{settings['seed']}"
    if run.out is not None:
        place = Path(os.path.abspath(run.out))
        name = place.name
        group = place.parent.name if os.path.lexists(place.parent / COMPARISON) else None
    return TrackedRun(name, group, dict(flat(settings)), run.figures, run.out, logged, memory)
