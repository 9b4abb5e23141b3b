"""The interface of an executor: the part that settings name, what it is given, and what it opens.

To write your own, subclass `ExecutorPart`. Its `open` gets `LaneWork` and returns an `Executor`, which trains
the lanes of one round after another. `fedtlu_fast.testing.check_executor` checks it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from fedtlu_fast.client_steps.step import Vectors
from fedtlu_fast.executors.lane_trainer import LaneTrainer
from fedtlu_fast.executors.lanes import Lane, LaneResult
from fedtlu_fast.executors.recipe import Recipe


class Executor(Protocol):
    """Trains the clients of a round. Which executor does it does not change the result."""

    def train(self, start: Vectors, lanes: Sequence[Lane]) -> Iterator[LaneResult]:
        """Trains the lanes of one round.

        Args:
            start: the global parameters [P] and buffers [Q], float32, which stay as they are.
            lanes: the lanes of the round (see `lanes.cut`); there may be none.

        Returns:
            The results in the order of the lanes, each valid until the next one is asked for. A caller may
            stop before the last one; the next round must work all the same.

        Raises:
            ClientError: A client failed, and the settings say to stop.
            WorkerError: Workers are lost again and again.
        """
        ...

    def close(self) -> None:
        """Ends its workers. A second call does nothing."""
        ...


@dataclass(frozen=True)
class LaneWork:
    """Holds what an executor needs to train the clients of a run.

    Attributes:
        trainer: the trainer of lanes in this process, and in processes that are forked from it.
        recipe: the function that builds a `LaneWorker` in any other process. It can be pickled if the user's
            own task, data and parts can.
        cohort: the number of clients that train in a round; more workers than that are of no use.
        device: the device that the clients train on: ``cpu``, ``cuda`` or ``cuda:N``.
        client_errors: whether a client that fails stops the run or is left out. The trainers heed it; an
            executor needs it only if it stops clients itself.
    """

    trainer: LaneTrainer
    recipe: Recipe
    cohort: int
    device: str = "cpu"
    client_errors: Literal["stop", "drop"] = "stop"


class ExecutorPart(ABC):
    """Says where clients are trained; ``execution.executor`` names it, with its parameters beside it."""

    def check(self, device: str, threads: int | None) -> None:  # noqa: B027 (most can do everything)
        """Raises an error unless this executor can train on such a device with so many threads.

        Args:
            device: the device of the run: ``cpu``, ``cuda`` or ``cuda:N``.
            threads: the number of threads of each process; None: PyTorch decides.

        Raises:
            InputError: It cannot; the field is ``device``, ``threads``, ``executor`` or one of its own.
        """

    def workers_for(self, cohort: int) -> int:
        """Returns the number of processes that train a cohort, for estimates of time and memory."""
        return 1

    @abstractmethod
    def open(self, work: LaneWork) -> Executor:
        """Opens the executor of a run.

        Args:
            work: the trainer, the recipe and the facts that it works with.

        Returns:
            The executor, which trains lanes until it is closed. Its workers may start with the first round.

        Raises:
            InputError: One of its parameters does not fit the run.
            BackendUnavailableError: A library or a cluster that it needs is missing.
        """
