"""An executor: a pool of processes from the standard library, each with its data and its model."""

import signal
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from typing import Annotated

from pydantic import Field

from fedtlu_fast import ExecutorPart, LaneWork, part

worker = None  # in each process of the pool: what trains lanes there


def begin(recipe):
    """Builds a process's data and model."""
    global worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the run heeds it
    worker = recipe()


def train(start, lane):
    """One lane, in a process of the pool."""
    return worker.train(start, lane)


@part
class Pool(ExecutorPart):
    """Trains in processes that are started anew, which also works where processes cannot be forked.

    Attributes:
        workers: how many processes.
    """

    workers: Annotated[int, Field(ge=1)] = 2

    def workers_for(self, cohort: int) -> int:
        """As many as there are, and no more than clients."""
        return min(self.workers, cohort)

    def open(self, work: LaneWork) -> "OpenPool":
        """A pool whose processes start with the first lane."""
        spawn = get_context("spawn")
        return OpenPool(ProcessPoolExecutor(self.workers_for(work.cohort), spawn, begin, (work.recipe,)))


class OpenPool:
    """The pool of one run."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self.pool = pool

    def train(self, start, lanes):
        """The results in the order of the lanes: `map` keeps it."""
        return self.pool.map(train, repeat([vector.cpu().numpy() for vector in start]), lanes)

    def close(self):
        """Ends the processes; a second call does nothing."""
        self.pool.shutdown(cancel_futures=True)
