"""Worker processes on this machine: forked, so that they start at once and share what is only read.

The global vectors, every worker's results and what it is doing lie in memory shared by all; through the
pipes go numbers only. Results do not depend on who trained what, and a worker that dies costs its lane.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.util
import os
import signal
import socket
import struct
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from fedtlu_fast.client_steps.step import Vectors
from fedtlu_fast.config import ExecutionConfig
from fedtlu_fast.errors import WorkerError
from fedtlu_fast.executors.crew import Done, Lost, train_in_order
from fedtlu_fast.executors.lane_trainer import LaneTrainer
from fedtlu_fast.executors.lanes import Lane, LaneResult
from fedtlu_fast.executors.patience import SILENCE, Patience, Sign, StoppedNotice
from fedtlu_fast.executors.shared_memory import SLOTS, SharedMemory, share
from fedtlu_fast.machine import refusal
from fedtlu_fast.stopping import end_with_parent, is_stopped


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
    """One process as its parent sees it.

    Attributes:
        process: of the system.
        pipe: lanes go out by it, and answers come in.
        free: slots that hold no result.
        thread: which thread of ours started it: it ends with that thread (see `end_with_parent`).
        lane: the one in training.
        slot: where its result goes.
    """

    process: Any
    pipe: Connection
    free: list[int]
    thread: threading.Thread
    lane: Lane | None = None
    slot: int = 0


class Processes:
    """A fixed number of forked workers, each with its copy of the model."""

    def __init__(self, trainer: LaneTrainer, config: ExecutionConfig, workers: int) -> None:
        """Allocates the shared memory; workers start with the first round.

        Args:
            trainer: what a worker trains with: the fork copies it.
            config: about lost workers and slow clients.
            workers: how many.

        Raises:
            InputError: their results have no room in memory.
        """
        layout = trainer.layout
        sizes = layout.size, sum(slot.numel for slot in layout.buffers)
        self._trainer, self._config, self._patience = trainer, config, Patience()
        self._notice = StoppedNotice("its clients wait")
        self._shared = share(sizes, workers)
        self._workers: list[_Worker | None] = [None] * workers

    def train(self, start: Vectors, lanes: Sequence[Lane]) -> Iterator[LaneResult]:
        """See `Executor`."""
        for place, vector in zip(self._shared.start, start, strict=True):
            place.copy_(vector)
        for index, worker in enumerate(self._workers):
            # Died while there was nothing to do, left over from a round broken off, or to end with another
            # thread than the one that now waits for the round.
            if worker is not None and not (
                worker.process.is_alive()
                and len(worker.free) == SLOTS
                and worker.thread is threading.current_thread()
            ):
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
        self._shared.doing[worker] = Sign(-1, 1, time.monotonic())
        try:
            own.pipe.send((lane, own.slot))
        except OSError:  # it died while it had nothing to do, or it does not listen; `wait` finds it dead
            own.process.kill()

    def wait(self) -> list[Done | Lost]:
        """See `Crew`."""
        busy = {w.pipe: i for i, w in enumerate(self._workers) if w is not None and w.lane is not None}
        while True:
            limit = self._config.client_seconds
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
        inherited = [w.pipe for w in self._workers if w is not None]
        try:
            ours, theirs = multiprocessing.Pipe()
            if self._config.client_seconds is not None:
                _time_out(ours, max(self._config.client_seconds, SILENCE))
            process = get_context("fork").Process(
                target=_work,
                args=(self._trainer, self._shared, worker, theirs, [ours, *inherited]),
                daemon=True,
                name=f"fedtlu-worker-{worker}",
            )
            with warnings.catch_warnings():
                # Python warns of forking beside threads; workers touch nothing that a thread could hold.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
        except OSError as error:
            raise WorkerError(
                f"worker {worker} could not be started: {refusal(error) or error.strerror}. Raise that "
                f"limit, or use fewer execution.workers"
            ) from error
        theirs.close()
        self._workers[worker] = _Worker(process, ours, free, threading.current_thread())

    def _live(self, worker: int) -> _Worker:
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
        return Lost(index, alive if lives else _why(process.exitcode), client if client >= 0 else None)

    def _sign(self, index: int) -> Sign:
        client, together, stamp = self._shared.doing[index].tolist()
        return Sign(int(client), int(together), stamp)

    def _end(self, index: int) -> None:
        worker = self._workers[index]
        if worker is not None:
            worker.process.kill()
            worker.process.join()
            worker.process.close()
            worker.pipe.close()
            self._workers[index] = None


def _work(
    trainer: LaneTrainer, shared: SharedMemory, index: int, pipe: Connection, inherited: Sequence[Connection]
) -> None:
    """A worker's life: lane after lane, until the pipe's other end is closed."""
    end_with_parent()
    # They may go to all processes of a terminal or a job; it is the parent that decides what they mean.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for other in inherited:
        other.close()
    torch.set_num_threads(1)
    doing = shared.doing[index]

    def watch(client: int, together: int = 1) -> None:
        doing[:] = client, together, time.monotonic()

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


def _time_out(pipe: Connection, seconds: float) -> None:
    """Has a pipe's reads and writes fail with an OSError when the other side does nothing for so long."""
    until = struct.pack("@ll", int(seconds), int(1e6 * (seconds % 1)))
    end = socket.socket(fileno=os.dup(pipe.fileno()))  # Linux: a pipe both ways is a pair of sockets
    with end:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            end.setsockopt(socket.SOL_SOCKET, option, until)


def _why(exit_code: int | None) -> str:
    if exit_code == -signal.SIGKILL:
        return "killed, by the system if memory ran out"
    if exit_code is not None and exit_code < 0:
        return f"ended by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"
