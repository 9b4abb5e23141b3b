"""An executor of a user's own, quick enough for many tests."""

from typing import Annotated

from pydantic import Field

from fedtlu_fast import ExecutorPart, InputError, part
from fedtlu_fast.executors.lanes import LaneResult


@part
class Backward(ExecutorPart):
    """Trains in this process, the last lanes first.

    Attributes:
        most: how many lanes are trained before the first of them is handed out.
    """

    most: Annotated[int, Field(ge=1)] = 2

    def check(self, device, threads):
        if threads == 3:
            raise InputError("threads", threads, "another with this executor")
        if self.most == 13:
            raise InputError("most", self.most, "another, for luck")

    def open(self, work):
        if self.most == 14:
            raise InputError("most", self.most, "fewer")
        return OpenBackward(work.trainer, self.most)


class OpenBackward:
    """Keeps a copy of each result."""

    def __init__(self, trainer, most):
        self.trainer, self.most, self.closed = trainer, most, 0

    def train(self, start, lanes):
        for first in range(0, len(lanes), self.most):
            some = lanes[first : first + self.most]
            yield from reversed([self.copied(self.trainer.train(start, lane)) for lane in reversed(some)])

    def copied(self, result):
        vectors = tuple(vector.clone() for vector in result.vectors)
        return LaneResult(result.lane, vectors, result.single, result.reports)

    def close(self):
        self.closed += 1
