"""The interface of an executor, and the one that works in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from fedtlu_fast.client_steps.step import Vectors
from fedtlu_fast.executors.lane_trainer import LaneTrainer
from fedtlu_fast.executors.lanes import Lane, LaneResult


class Executor(Protocol):
    """Trains the clients of a round somewhere. Which one does it does not change the result."""

    def train(self, start: Vectors, lanes: Sequence[Lane]) -> Iterator[LaneResult]:
        """Trains the lanes of one round.

        Args:
            start: global parameters [P] and buffers [Q]; not changed.
            lanes: see `lanes.cut`.

        Returns:
            Their results in the order of the lanes, each valid until the next is asked for.

        Raises:
            ClientError: a client failed, and the settings say to stop.
            WorkerError: workers are lost again and again.
        """
        ...

    def close(self) -> None:
        """Ends its workers."""
        ...


class InProcess:
    """Trains lane after lane in this process (``serial`` and ``vectorized``)."""

    def __init__(self, trainer: LaneTrainer) -> None:
        self._trainer = trainer

    def train(self, start: Vectors, lanes: Sequence[Lane]) -> Iterator[LaneResult]:
        """See `Executor`."""
        for lane in lanes:
            yield self._trainer.train(start, lane)

    def close(self) -> None:
        """Nothing to end."""
