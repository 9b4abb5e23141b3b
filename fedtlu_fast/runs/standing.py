"""How runs, comparisons and experiments stand: whether they go on, have finished, or were stopped or killed.

Nothing is checked against digests here, and nothing here loads PyTorch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fedtlu_fast.runs.directory import CONFIG, LOCK, METRICS, SUMMARY
from fedtlu_fast.runs.follow import last_rows
from fedtlu_fast.runs.lock import holder_of

State = Literal["running", "finished", "stopped", "killed", "not begun", "unreadable"]
"""How a run stands. It is stopped if it ended by itself before its last round, at a signal or an error; it is
killed if it could not even say that it ends (`kill -9`, a lack of memory, a power cut)."""
SILENT_SECONDS = 600
"""A run on another machine, where nobody can see whether it lives, counts as killed after this silence."""


def state_of(path: Path, until: int | None = None) -> State:
    """Returns how a single run stands.

    Args:
        path: its directory.
        until: the round at which it ends if it ends without a summary; None for a run that writes one.
    """
    if os.path.lexists(path / SUMMARY):
        return "finished"
    held = held_state(path)
    if held is not None:
        return held
    if not os.path.lexists(path / CONFIG):
        return "not begun"
    return "finished" if until is not None and last_rows(path / METRICS)[0] >= until else "stopped"


def held_state(path: Path) -> Literal["running", "killed"] | None:
    """Returns what the lock of a directory says; None if nobody holds it, and if nobody was killed."""
    holder = holder_of(path / LOCK)
    if holder is None:
        return None
    alive = silence(path) < SILENT_SECONDS if holder.alive is None else holder.alive
    return "running" if alive else "killed"


def silence(path: Path) -> float:
    """Returns the seconds since a run has written something."""
    times = []
    for name in (METRICS, CONFIG, LOCK):
        try:
            times.append(os.stat(path / name).st_mtime)
        except OSError:
            continue
    return max(0.0, time.time() - max(times)) if times else 0.0


def state_of_arms(path: Path, arms: Sequence[Path], states: Sequence[State]) -> State:
    """Returns how a comparison or an experiment stands as a whole.

    The locks of the comparisons count too, because between two arms nobody holds an arm's.

    Args:
        path: the directory of the comparison or experiment.
        arms: the directories of its runs.
        states: how these stand.
    """
    if all(state == "finished" for state in states):
        return "finished"
    held = [held_state(folder) for folder in dict.fromkeys([path, *(arm.parent for arm in arms)])]
    if "running" in held or "running" in states:
        return "running"
    if "killed" in held or "killed" in states:
        return "killed"
    return "stopped"
