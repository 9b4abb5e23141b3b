"""A tracker that writes a line for every round."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TextIO

from fedtlu_fast.integrations.trackers.tracker import OpenTracker, TrackedRun, Tracker
from fedtlu_fast.parts import part


@part
class Print(Tracker):
    """Writes a line with the metrics of every round, the blocks that were chosen, and the time.

    It writes to standard error, so that results on standard output (``--json``) stay readable.
    """

    def start(self, run: TrackedRun) -> OpenTracker:
        """See `Tracker`."""
        return _Lines(run, sys.stderr)


class _Lines(OpenTracker):
    def __init__(self, run: TrackedRun, stream: TextIO) -> None:
        self._run, self._stream = run, stream

    def log(self, row: Mapping[str, float], step: int) -> None:
        told = [f"{name} {row[name]:.4g}" for name in self._run.figures if name in row]
        chosen = [name.partition("/")[2] for name, on in row.items() if name.startswith("selected/") and on]
        self._write([f"round {step}", *told, f"updated {' '.join(chosen) or 'nothing'}", _seconds(row)])

    def finish(self, summary: Mapping[str, float]) -> None:
        told = [f"{name} {summary[name]:.4g}" for name in self._run.figures if name in summary]
        self._write(["summary", *told, _seconds(summary)])

    def _write(self, told: list[str]) -> None:
        self._stream.write(f"{self._run.name}: {', '.join(told)}\n")
        self._stream.flush()


def _seconds(row: Mapping[str, float]) -> str:
    return f"{row['seconds']:.2f} s"
