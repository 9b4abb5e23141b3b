"""Worker processes on this machine: forked, so that they start at once and share what is only read.

The global vectors, every worker's results and what it is doing lie in memory shared by all; through the
pipes go numbers only. Results do not depend on who trained what, and a worker that dies costs its lane.
"""

from __future__ import annotations

import atexit
import multiprocessing.util  # noqa: F401 (its handler at exit comes first, so that ours runs before it)
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait

import torch

from fedtlu_fast.client_steps.step import Vectors
from fedtlu_fast.executors.crew import Done, Lost, Policy, train_in_order
from fedtlu_fast.executors.forked import ForkedWorker, fork, why_ended
from fedtlu_fast.executors.lane_trainer import LaneTrainer
from fedtlu_fast.executors.lanes import Lane, LaneResult
from fedtlu_fast.executors.patience import SILENCE, Patience, Sign, StoppedNotice
from fedtlu_fast.executors.shared_memory import SLOTS, share
from fedtlu_fast.stopping import is_stopped


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


class ForkedExecutor:
    """A fixed number of forked workers, each with its copy of the model."""

    def __init__(self, trainer: LaneTrainer, workers: int, policy: Policy) -> None:
        """Allocates the shared memory; workers start with the first round.

        Args:
            trainer: what a worker trains with: the fork copies it.
            workers: how many.
            policy: what becomes of lost workers and of clients that take too long.

        Raises:
            InputError: their results have no room in memory.
        """
        layout = trainer.layout
        sizes = layout.size, sum(slot.numel for slot in layout.buffers)
        self._trainer, self._policy, self._patience = trainer, policy, Patience()
        self._notice = StoppedNotice("its clients wait")
        self._shared = share(sizes, workers)
        self._workers: list[ForkedWorker | None] = [None] * workers

    def train(self, start: Vectors, lanes: Sequence[Lane]) -> Iterator[LaneResult]:
        """See `Executor`."""
        for place, vector in zip(self._shared.start, start, strict=True):
            place.copy_(vector)
        for index, worker in enumerate(self._workers):
            if worker is not None and not worker.is_ready:
                self._end(index)
            if self._workers[index] is None and index < len(lanes):
                self._start(index, list(range(SLOTS)))
        return train_in_order(self, lanes, self._policy)

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
        self._shared.doing[worker] = Sign(-1, 1, time.monotonic())
        try:
            own.pipe.send((lane, own.slot))
        except OSError:  # it died while it had nothing to do, or it does not listen; `wait` finds it dead
            own.process.kill()

    def wait(self) -> list[Done | Lost]:
        """See `Crew`."""
        busy = {w.pipe: i for i, w in enumerate(self._workers) if w is not None and w.lane is not None}
        while True:
            limit = self._policy.client_seconds
            seconds = 1.0 if limit is None else min(1.0, limit / 4)
            ready = wait(list(busy), seconds)
            events = [self._event(busy[pipe]) for pipe in ready if isinstance(pipe, Connection)]
            quiet = [index for pipe, index in busy.items() if pipe not in ready]
            events += self._dead(quiet) if limit is None else self._hung(quiet, limit, seconds)
            if events:
                return events
            if limit is None:
                pids = {self._live(index).process.pid for index in quiet}
                self._notice.look({pid for pid in pids if is_stopped(pid)}, seconds)

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
        others = [w.pipe for w in self._workers if w is not None]
        limit = self._policy.client_seconds
        self._workers[worker] = fork(self._trainer, self._shared, worker, free, others, limit)

    def _live(self, worker: int) -> ForkedWorker:
        found = self._workers[worker]
        if found is None:
            raise RuntimeError(f"worker {worker} was never started")
        return found

    def _event(self, index: int) -> Done | Lost:
        worker = self._live(index)
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError):  # dead; stopped in the middle of its answer; or it closed the pipe
            worker.process.join(SILENCE)
            return self._lost(index, "it stopped answering")
        if isinstance(answer, BaseException):
            raise answer
        single, reports = answer
        lane, worker.lane = worker.lane, None
        if lane is None:
            raise RuntimeError(f"worker {index} answered without a lane")
        return Done(index, LaneResult(lane, self._shared.slots[index][worker.slot], single, reports))

    def _dead(self, quiet: Sequence[int]) -> list[Done | Lost]:
        """The workers that are gone though their pipe is open, which a child of theirs may hold."""
        gone = (i for i in quiet if not self._live(i).process.is_alive() and not self._live(i).pipe.poll())
        return [self._lost(index) for index in gone]

    def _hung(self, quiet: Sequence[int], limit: float, between: float) -> list[Done | Lost]:
        """The workers that have given no sign of life for too long, and those that are gone."""
        signs = {index: self._sign(index) for index in quiet}
        events = self._dead(quiet)
        dead = {event.worker for event in events}
        for index in self._patience.late(signs, limit, between):
            if index not in dead:
                events.append(self._too_late(index, signs[index], f"execution.client_seconds={limit:g}"))
        return events

    def _too_late(self, index: int, sign: Sign, limit: str) -> Lost:
        if is_stopped(self._live(index).process.pid):  # by somebody else: no client is to blame
            return self._lost(index, f"it was stopped (SIGSTOP) for longer than {limit}")
        if sign.client < 0:
            count = f"{sign.together} times " if sign.together > 1 else ""
            return self._lost(index, f"it gave no sign of life for longer than {count}{limit}")
        reason = f"it trained for more than {limit}"
        lost = self._lost(index, reason)
        return replace(lost, hung=lost.reason == reason)

    def _lost(self, index: int, alive: str = "") -> Lost:
        """What became of a worker, which is ended if it lives; `alive` is the reason then."""
        process, client = self._live(index).process, self._sign(index).client
        lives = process.is_alive()
        process.kill()
        process.join()
        return Lost(index, alive if lives else why_ended(process.exitcode), client if client >= 0 else None)

    def _sign(self, index: int) -> Sign:
        client, together, stamp = self._shared.doing[index].tolist()
        return Sign(int(client), int(together), stamp)

    def _end(self, index: int) -> None:
        worker = self._workers[index]
        if worker is not None:
            worker.end()
            self._workers[index] = None
