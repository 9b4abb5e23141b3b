"""The callback that gives a tracker the numbers of a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedtlu_fast.config.chooser import Chooser
from fedtlu_fast.errors import InputError, cause, check_kind
from fedtlu_fast.integrations.trackers.kept import Kept, key_of, read_kept, write_kept
from fedtlu_fast.integrations.trackers.numbers import of_round, of_summary
from fedtlu_fast.integrations.trackers.tracker import FIELD, OpenTracker, TrackedRun, Tracker
from fedtlu_fast.own_errors import named_errors
from fedtlu_fast.registry import names
from fedtlu_fast.runs.directory import COMPARISON
from fedtlu_fast.simulation.callbacks import Callback
from fedtlu_fast.simulation.run_context import RunContext
from fedtlu_fast.yaml_text import flat

logger = logging.getLogger("fedtlu_fast")

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
        with named_errors(FIELD, self.tracker):
            opened = self.tracker.start(_described(run, logged, kept.memory))
            check_kind(f"{FIELD}: what start returned", opened, OpenTracker, "an OpenTracker")
        self._open = opened
        self._keep(run, logged)
        for row, choice in zip(run.rows[logged:], run.choices[logged:], strict=True):
            self._log(row, choice, row["round"])

    def on_round_end(self, run: RunContext) -> None:
        """Logs the round."""
        assert run.choice is not None
        self._log(run.this_row, run.choice, run.round)

    def on_checkpoint(self, run: RunContext) -> None:
        """Remembers how far the record goes."""
        self._keep(run, run.round)

    def on_end(self, run: RunContext) -> None:
        """Logs the summary and closes the record."""
        assert self._open is not None
        assert run.result is not None
        with named_errors(FIELD, self.tracker):
            self._open.finish(of_summary(run.result.summary))
        self._open = None

    def on_close(self, run: RunContext) -> None:
        """Closes the record of a run that was interrupted."""
        opened, self._open = self._open, None
        if opened is None:
            return
        try:
            opened.close()
        except Exception as error:  # raised, it would hide the error that has ended the run
            logger.warning("the tracker %s did not close its record: %s", self._key, cause(error))

    def _log(self, row: Mapping[str, Any], choice: Mapping[str, Any], step: int) -> None:
        assert self._open is not None
        with named_errors(FIELD, self.tracker):
            self._open.log(of_round(row, choice), step)

    def _keep(self, run: RunContext, logged: int) -> None:
        if run.out is None or self._open is None:
            return
        with named_errors(FIELD, self.tracker):
            memory = self._open.memory
        if not isinstance(memory, Mapping) or not all(
            isinstance(text, str) for pair in memory.items() for text in pair
        ):
            raise InputError(f"{FIELD}: memory", memory, "a mapping from text to text")
        write_kept(run.out, self._key, Kept(logged, memory))


def _found(given: str | Tracker) -> Tracker:
    settings: dict[str, Any] = {FIELD: given}
    if isinstance(given, str):
        settings = CHOOSER.spelled_out(FIELD, given)
    tracker: Any = CHOOSER.read(FIELD, settings.pop(FIELD), settings)
    if not isinstance(tracker, Tracker):
        expected = f"one of {', '.join(names('tracker'))}, or an object of a subclass of {Tracker.__module__}"
        raise InputError(FIELD, given, f"{expected}.{Tracker.__name__}")
    with named_errors(FIELD, tracker):
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
