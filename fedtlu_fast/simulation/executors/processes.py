"""Worker processes on this machine: forked, so that they start at once and share what is only read.

The global vectors, every worker's results and what it is doing lie in memory shared by all; through the
pipes go numbers only. Results do not depend on who trained what, and a worker that dies costs its lane.
"""

from __future__ import annotations

import atexit
import mmap
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.config import ExecutionConfig
from fedtlu_fast.errors import WorkerError
from fedtlu_fast.simulation.executors.crew import Done, Lost, train_in_order
from fedtlu_fast.simulation.executors.lane_trainer import LaneTrainer
from fedtlu_fast.simulation.executors.lanes import Lane, LaneResult, Vectors
from fedtlu_fast.simulation.stopping import end_with_parent

SLOTS = 2
"""Results that a worker can hold: one that waits for its turn while the next lane is trained."""


def why_not(device: str, threads: int | None) -> str | None:
    """None when processes can be used, else why not."""
    if not sys.platform.startswith("linux"):
        return "they are forked, which is safe on Linux only"
    if device != "cpu":
        return "a GPU cannot be shared by forked processes; use vectorized or ray there"
    if torch.cuda.device_count():
        # torch's first backward pass starts a thread for every GPU it sees, even for tensors on the CPU.
        return "no process that sees a GPU can be forked; hide it by CUDA_VISIBLE_DEVICES= in the environment"
    if threads not in (1, None):
        return "each of them uses one thread; leave threads=1 and set execution.workers"
    return None


@dataclass
class _Worker:
    """One process as its parent sees it."""

    process: Any
    pipe: Connection
    free: list[int]
    lane: Lane | None = None
    slot: int = 0


@dataclass
class _Shared:
    """Memory that all processes see.

    Attributes:
        start: global parameters and buffers.
        slots: [workers][SLOTS] results.
        doing: [workers, 2]: the client in training, or -1, and since when (`time.monotonic`).
    """

    start: Vectors
    slots: list[list[Vectors]]
    doing: NDArray[np.float64]
    _kept: list[mmap.mmap] = field(default_factory=list)


class Processes:
    """A fixed number of forked workers, each with its copy of the model."""

    def __init__(self, trainer: LaneTrainer, config: ExecutionConfig, workers: int) -> None:
        """Allocates the shared memory; workers start with the first round.

        Args:
            trainer: what a worker trains with: the fork copies it.
            config: about lost workers and slow clients.
            workers: how many.
        """
        layout = trainer.trainer.layout
        sizes = layout.size, sum(slot.numel for slot in layout.buffers)
        self._trainer, self._config = trainer, config
        self._shared = _share(sizes, workers)
        self._workers: list[_Worker | None] = [None] * workers

    def train(self, start: Vectors, lanes: Sequence[Lane]) -> Iterator[LaneResult]:
        """See `Executor`."""
        for place, vector in zip(self._shared.start, start, strict=True):
            place.copy_(vector)
        for index, worker in enumerate(self._workers):
            # Died while there was nothing to do, or left over from a round broken off.
            if worker is not None and (not worker.process.is_alive() or len(worker.free) < SLOTS):
                self._end(index)
            if self._workers[index] is None and index < len(lanes):
                self._start(index, list(range(SLOTS)))
        return train_in_order(self, lanes, self._config)

    def close(self) -> None:
        """See `Executor`."""
        atexit.unregister(self.close)
        for index in range(len(self._workers)):
            self._end(index)

    def idle(self) -> list[int]:
        """See `Crew`."""
        return [i for i, w in enumerate(self._workers) if w is not None and w.lane is None and w.free]

    def give(self, worker: int, lane: Lane) -> None:
        """See `Crew`."""
        if not self._live(worker).process.is_alive():
            # It died with nothing to do: that is no loss of this lane.
            self._start(worker, self._live(worker).free)
        own = self._live(worker)
        own.lane, own.slot = lane, own.free.pop()
        self._shared.doing[worker, 0] = -1
        with suppress(OSError):  # it died while it had nothing to do; `wait` will tell
            own.pipe.send((lane, own.slot))

    def wait(self) -> list[Done | Lost]:
        """See `Crew`."""
        busy = {w.pipe: i for i, w in enumerate(self._workers) if w is not None and w.lane is not None}
        while True:
            limit = self._config.client_seconds
            ready = wait(list(busy), None if limit is None else min(1.0, limit / 4))
            events = [self._event(busy[pipe]) for pipe in ready if isinstance(pipe, Connection)]
            events += self._hung([index for pipe, index in busy.items() if pipe not in ready])
            if events:
                return events

    def release(self, result: LaneResult) -> None:
        """See `Crew`."""
        for index, slots in enumerate(self._shared.slots):
            for slot, vectors in enumerate(slots):
                if vectors is result.vectors:
                    self._live(index).free.append(slot)

    def replace(self, worker: int) -> None:
        """See `Crew`."""
        # What it had finished before it died is still to be read.
        lost = self._live(worker)
        self._start(worker, [*lost.free, lost.slot])

    def _start(self, worker: int, free: list[int]) -> None:
        self._end(worker)
        if not any(self._workers):
            # Before multiprocessing's own, which would wait for ever for workers that heed no SIGTERM.
            atexit.register(self.close)
        ours, theirs = multiprocessing.Pipe()
        inherited = [w.pipe for w in self._workers if w is not None]
        process = get_context("fork").Process(
            target=_work,
            args=(self._trainer, self._shared, worker, theirs, [ours, *inherited]),
            daemon=True,
            name=f"fedtlu-worker-{worker}",
        )
        try:
            with warnings.catch_warnings():
                # Python warns of forking beside threads; workers touch nothing that a thread could hold.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
        except OSError as error:
            raise WorkerError(
                f"worker {worker} could not be started: {error.strerror}. Use fewer execution.workers; "
                f"then go on by --resume"
            ) from error
        theirs.close()
        self._workers[worker] = _Worker(process, ours, free)

    def _live(self, worker: int) -> _Worker:
        found = self._workers[worker]
        if found is None:
            raise RuntimeError(f"worker {worker} was never started")
        return found

    def _event(self, index: int) -> Done | Lost:
        worker = self._live(index)
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            return Lost(index, _why(worker.process.exitcode), self._doing(index))
        if isinstance(answer, BaseException):
            raise answer
        single, reports = answer
        lane, worker.lane = worker.lane, None
        if lane is None:
            raise RuntimeError(f"worker {index} answered without a lane")
        return Done(index, LaneResult(lane, self._shared.slots[index][worker.slot], single, reports))

    def _hung(self, busy: Sequence[int]) -> list[Done | Lost]:
        limit = self._config.client_seconds
        if limit is None:
            return []
        late: list[Done | Lost] = []
        for index in busy:
            client, since = self._doing(index), float(self._shared.doing[index, 1])
            if client is not None and time.monotonic() - since > limit:
                self._live(index).process.kill()
                self._live(index).process.join()
                reason = f"it trained for more than execution.client_seconds={limit:g}"
                late.append(Lost(index, reason, client, hung=True))
        return late

    def _doing(self, index: int) -> int | None:
        client = int(self._shared.doing[index, 0])
        return client if client >= 0 else None

    def _end(self, index: int) -> None:
        worker = self._workers[index]
        if worker is not None:
            worker.process.kill()
            worker.process.join()
            worker.process.close()
            worker.pipe.close()
            self._workers[index] = None


def _share(sizes: tuple[int, int], workers: int) -> _Shared:
    """Anonymous shared memory: not limited by the size of /dev/shm, and gone with the last process."""
    kept: list[mmap.mmap] = []

    def block(count: int, dtype: torch.dtype) -> Tensor:
        kept.append(mmap.mmap(-1, max(1, count * dtype.itemsize)))
        return torch.frombuffer(kept[-1], dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)

    def vectors() -> Vectors:
        return block(sizes[0], torch.float32), block(sizes[1], torch.float32)

    start = vectors()
    slots = [[vectors() for _ in range(SLOTS)] for _ in range(workers)]
    doing = block(2 * workers, torch.float64).numpy().reshape(workers, 2)
    return _Shared(start, slots, doing, kept)


def _work(
    trainer: LaneTrainer, shared: _Shared, index: int, pipe: Connection, inherited: Sequence[Connection]
) -> None:
    """A worker's life: lane after lane, until the pipe's other end is closed."""
    # They may go to all processes of a terminal or a job; it is the parent that decides what they mean.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for other in inherited:
        other.close()
    end_with_parent()
    torch.set_num_threads(1)
    doing = shared.doing[index]

    def watch(client: int) -> None:
        doing[1] = time.monotonic()
        doing[0] = client

    trainer.watch = watch
    while True:
        try:
            lane, slot = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        try:
            result = trainer.train(shared.start, lane, shared.slots[index][slot])
            answer: object = result.single, result.reports
        except Exception as error:
            answer = error
        try:
            pipe.send(answer)
        except OSError:
            os._exit(0)


def _why(exit_code: int | None) -> str:
    if exit_code == -signal.SIGKILL:
        return "killed, by the system if memory ran out"
    if exit_code is not None and exit_code < 0:
        return f"ended by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"
