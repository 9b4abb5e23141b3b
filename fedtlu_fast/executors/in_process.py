"""The executor that works in the process of the run itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedtlu_fast.client_steps.step import Vectors
from fedtlu_fast.executors.lane_trainer import LaneTrainer
from fedtlu_fast.executors.lanes import Lane, LaneResult


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
