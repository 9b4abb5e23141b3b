"""The interface of a tracker: the part that is given by name, what it is told, and what it opens.

To write your own, subclass `Tracker`. Its `start` gets a `TrackedRun` and returns an `OpenTracker`, which
gets the numbers of every round and, at the end, those of the summary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtlu_fast.tasks.metrics import Better
from fedtlu_fast.wording import either

FIELD = either("tracker", "--track")
"""The argument or option that names a tracker."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told when a run begins or is resumed.

    Attributes:
        name: the name of the run's directory; of a run without one, its selector and seed.
        group: the name of the comparison that the run is an arm of; None for a single run.
        settings: all settings of the run, by their dotted names (``training.lr``).
        figures: for each metric that the run knows how to compare, whether lower or higher values are better.
        directory: the run's directory; None when it writes nothing.
        logged: how many rounds an earlier process has logged. The rounds that follow are logged next, whether
            or not that process had logged some of them too; their values are the same, except for times.
        memory: the `OpenTracker.memory` of that process; empty when this tracker is new to the run.
    """

    name: str
    group: str | None
    settings: Mapping[str, Any]
    figures: Mapping[str, Better]
    directory: Path | None
    logged: int
    memory: Mapping[str, str]


class OpenTracker(ABC):
    """Gets the numbers of one run, in one process."""

    @property
    def memory(self) -> Mapping[str, str]:
        """What a later process needs to go on with the same record, such as an id. The run keeps it."""
        return {}

    @abstractmethod
    def log(self, row: Mapping[str, float], step: int) -> None:
        """Takes the numbers of one round.

        Args:
            row: the numbers of the round by name, all finite; see `numbers.of_round`.
            step: the number of the round, from 1.
        """

    @abstractmethod
    def finish(self, summary: Mapping[str, float]) -> None:
        """Takes the numbers of the summary and closes the record.

        Args:
            summary: the numbers in summary.json by name; those that are nested have names such as
                ``best/round``.
        """

    def close(self) -> None:  # noqa: B027 (most have written everything by then)
        """Closes the record of a run that ends without a summary in this process; it may be resumed later."""


class Tracker(ABC):
    """Says where the numbers of a run go; `Track` names it. It is a value that holds parameters only."""

    def check(self) -> None:  # noqa: B027 (most need nothing)
        """Raises an error if this tracker cannot work here; it is called before a run begins.

        Raises:
            InputError: It cannot, for example because a package is not installed.
        """

    @abstractmethod
    def start(self, run: TrackedRun) -> OpenTracker:
        """Opens the record of a run that begins or is resumed.

        Args:
            run: what there is to know of the run.

        Raises:
            InputError: One of its parameters does not fit the run.
        """
