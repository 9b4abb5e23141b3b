"""What a run writes while it goes: rows, checkpoints and a summary; nothing where it has no directory."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtlu_fast.errors import InputError, listed, shorten
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.runs.directory import METRICS, RESULTS, SELECTION, TIMINGS, RunDirectory
from fedtlu_fast.runs.reading import damage, has_summary
from fedtlu_fast.runs.settings import StoredSettings
from fedtlu_fast.simulation.state import ServerState, load_checkpoint, save_checkpoint

logger = logging.getLogger("fedtlu_fast")

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Saving:
    """When a run writes checkpoints.

    Attributes:
        every: rounds between two.
        minutes: one is also written after so many minutes without; None: by rounds only.
        retain: how many are kept.
    """

    every: int
    minutes: float | None
    retain: int


class RunFiles:
    """The files of one run.

    Attributes:
        directory: where they are; None for a run that writes nothing.
        metrics: rows of metrics.jsonl; always the same list, which callbacks look at.
        selection: rows of selection.jsonl.
    """

    def __init__(
        self,
        settings: StoredSettings,
        saving: Saving,
        layout: ParameterLayout,
        identity: Mapping[str, str],
        environment: Mapping[str, str],
    ) -> None:
        """Of a run that writes nothing yet; see `create` and `resume`.

        Args:
            settings: of the run.
            saving: when it writes checkpoints.
            layout: of its model.
            identity: what a resumed run must share (digests of settings and data).
            environment: where this runs.
        """
        self.directory: RunDirectory | None = None
        self.metrics: Rows = []
        self.selection: Rows = []
        self._settings, self._saving, self._layout = settings, saving, layout
        self._identity, self._environment = identity, environment
        self._saved_round, self._saved_at = 0, time.monotonic()

    @property
    def out(self) -> Path | None:
        """The directory's path."""
        return None if self.directory is None else self.directory.path

    def create(self, out: Path) -> None:
        """Begins a new directory; raises as `RunDirectory.create` does."""
        self.directory = RunDirectory.create(out, self._settings.text)

    def resume(self, out: Path, begun: StoredSettings) -> tuple[ServerState | None, bool]:
        """Opens the directory of a run that was begun, and drops what is later than its latest checkpoint.

        Args:
            out: the directory.
            begun: the settings that it holds.

        Returns:
            The state in the checkpoint, None when there is none yet; and whether the directory held a
            summary, and everything that it stands on.

        Raises:
            InputError: the run belongs to other settings or data, another run writes there, or it has done
                more rounds than the settings ask for.
            StorageError: the directory cannot be written.
        """
        directory, rounds = RunDirectory(out), self._settings.rounds
        directory.lock()
        self.directory = directory
        try:
            state = load_checkpoint(
                directory.checkpoints, self._layout, self._identity, environment=self._environment
            )
        except InputError as error:
            if not (changed := begun.changed(self._settings)):
                raise
            told = [
                f"{name} was {shorten(a, 60)} and is {shorten(b, 60)}" for name, (a, b) in changed.items()
            ]
            expected = f"{error.expected} ({listed(told)})"
            raise InputError(error.field, error.value, expected, error.fix) from None
        done = 0 if state is None else state.round
        if rounds < done:
            raise InputError("rounds", rounds, f"{done} or more: so many are done")
        ended = has_summary(directory)
        damaged = damage(directory) if ended else None
        directory.rewind(done)
        if damaged:
            logger.warning("%s: %s; the end of this run is made anew", out, damaged)
        if begun.rounds != rounds:
            directory.change_settings(begun.with_rounds(rounds).text)
        self.metrics[:], self.selection[:] = directory.rows(METRICS), directory.rows(SELECTION)
        self._saved_round, self._saved_at = done, time.monotonic()
        return state, ended and not damaged

    def adopt(self, source: Path) -> ServerState | None:
        """Copies the rows of another run, which did what this one would have done so far.

        Returns:
            The state in its latest checkpoint; None when it has none, or this run writes nothing.

        Raises:
            InputError: it ran on other data.
        """
        origin, _ = RunDirectory.open(source)
        data_only = {"data_sha256": self._identity["data_sha256"]}
        state = load_checkpoint(origin.checkpoints, self._layout, data_only)
        if state is None or self.directory is None:
            return None
        rows = {log: origin.rows(log)[: state.round] for log in RESULTS}
        for log, held in {**rows, TIMINGS: origin.timings(state.round)}.items():
            for row in held:
                self.directory.append(log, row)
        self.metrics[:] = self.directory.rows(METRICS)
        self.selection[:] = self.directory.rows(SELECTION)
        return state

    def append(self, metrics: dict[str, Any], choice: dict[str, Any], timings: dict[str, Any]) -> None:
        """Adds the rows of one round.

        Raises:
            StorageError: they cannot be written.
        """
        if self.directory is not None:
            self.directory.append(SELECTION, choice)
            self.directory.append(TIMINGS, timings)
            self.directory.append(METRICS, metrics)
        self.metrics.append(metrics)
        self.selection.append(choice)

    def is_due(self, index: int) -> bool:
        """Whether a checkpoint is due after a round."""
        if index % self._saving.every == 0:
            return True
        minutes = self._saving.minutes
        return minutes is not None and time.monotonic() - self._saved_at > 60 * minutes

    def save(self, state: ServerState) -> bool:
        """Writes a checkpoint, unless the round has one; whether it was written.

        Raises:
            StorageError: it cannot be written.
        """
        if self.directory is None or (self._saved_round == state.round and state.round):
            return False
        self.directory.sync()
        save_checkpoint(
            self.directory.checkpoints,
            self._layout,
            state,
            self._identity,
            self._saving.retain,
            logs=self.directory.digests(state.round),
            environment=self._environment,
        )
        self._saved_round, self._saved_at = state.round, time.monotonic()
        return True

    def finish(self, summary: Mapping[str, Any], rounds: int) -> None:
        """Writes the summary.

        Raises:
            StorageError: it cannot be written.
        """
        if self.directory is not None:
            self.directory.finish(summary, rounds)

    def close(self) -> None:
        """Lets other runs write to the directory."""
        if self.directory is not None:
            self.directory.close()
