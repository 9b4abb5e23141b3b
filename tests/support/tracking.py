"""Runs that are tracked, killed and resumed, for the tests of trackers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedtlu_fast import Callback, simulate
from fedtlu_fast.config import RunConfig
from fedtlu_fast.integrations.trackers import Track, Tracker
from fedtlu_fast.integrations.trackers.numbers import of_round, of_summary
from fedtlu_fast.runs.results import RunResult
from fedtlu_fast.simulation.run_context import RunContext


class Killed(BaseException):
    """Stands for the end of the process."""


@dataclass
class Kill(Callback):
    """Ends the process before a round."""

    at: int

    def on_round_start(self, run: RunContext) -> None:
        if run.round == self.at:
            raise Killed


def killed_and_resumed(config: RunConfig, out: Path, tracker: str | Tracker) -> RunResult:
    """A run of five rounds that is killed before round 4 and resumed from its checkpoint of round 2.

    Round 3 is therefore logged twice.
    """
    with pytest.raises(Killed):
        simulate(config, out, callbacks=[Track(tracker), Kill(4)])
    return simulate(config, out, resume=True, callbacks=[Track(tracker)])


def numbers(result: RunResult) -> dict[str, list[tuple[int, Any]]]:
    """What a tracker should hold of a run: (round, value) by name, without times."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for row, choice in zip(result.metrics, result.selection, strict=True):
        for name, value in of_round(row, choice).items():
            found.setdefault(name, []).append((row["round"], value))
    for name, value in of_summary(result.summary).items():
        found[f"summary/{name}"] = [(len(result.metrics), value)]
    return {name: values for name, values in found.items() if "seconds" not in name}
