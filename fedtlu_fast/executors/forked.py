"""Starts and ends a forked worker process, and runs inside it."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import socket
import struct
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch

from fedtlu_fast.errors import WorkerError
from fedtlu_fast.executors.lane_trainer import LaneTrainer
from fedtlu_fast.executors.lanes import Lane
from fedtlu_fast.executors.patience import SILENCE
from fedtlu_fast.executors.shared_memory import SLOTS, SharedMemory
from fedtlu_fast.machine import refusal
from fedtlu_fast.memory import keep_freed
from fedtlu_fast.stopping import end_with_parent


@dataclass
class ForkedWorker:
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

    @property
    def is_ready(self) -> bool:
        """Whether it can take the lanes of a new round.

        Not so if it died while there was nothing to do, is left over from a round broken off, or is to end
        with another thread than the one that now waits for the round.
        """
        alive = self.process.is_alive()
        return alive and len(self.free) == SLOTS and self.thread is threading.current_thread()

    def end(self) -> None:
        """Kills the process and forgets it."""
        self.process.kill()
        self.process.join()
        self.process.close()
        self.pipe.close()


def fork(
    trainer: LaneTrainer,
    shared: SharedMemory,
    index: int,
    free: list[int],
    inherited: Sequence[Connection],
    client_seconds: float | None,
) -> ForkedWorker:
    """Starts a worker.

    Args:
        trainer: the trainer of lanes, which the fork copies.
        shared: the memory for the global vectors, results and signs of life.
        index: the worker's number, and its place in `shared`.
        free: the worker's slots that hold no result.
        inherited: our ends of the other workers' pipes, which the new worker closes.
        client_seconds: the number of seconds that a client may take; None: no limit.

    Raises:
        WorkerError: The system does not start the process.
    """
    try:
        ours, theirs = multiprocessing.Pipe()
        if client_seconds is not None:
            _time_out(ours, max(client_seconds, SILENCE))
        process = get_context("fork").Process(
            target=_work,
            args=(trainer, shared, index, theirs, [ours, *inherited]),
            daemon=True,
            name=f"fedtlu-worker-{index}",
        )
        with warnings.catch_warnings():
            # Python warns of forking beside threads; workers touch nothing that a thread could hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
    except OSError as error:
        raise WorkerError(
            f"worker {index} could not be started: {refusal(error) or error.strerror}. Raise that "
            f"limit, or use fewer execution.workers"
        ) from error
    theirs.close()
    return ForkedWorker(process, ours, free, threading.current_thread())


def why_ended(exit_code: int | None) -> str:
    """Returns the reason for which a process ended, in words."""
    if exit_code == -signal.SIGKILL:
        return "killed, by the system if memory ran out"
    if exit_code is not None and exit_code < 0:
        return f"ended by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"


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
    # What the parent made stays: looking through it for garbage takes time, and copies its shared pages.
    gc.freeze()
    torch.set_num_threads(1)
    keep_freed()
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
        except (Exception, KeyboardInterrupt) as error:
            # An interrupt can only have been raised by the user's code, as SIGINT is ignored here; it ends
            # the run as one in the run's own process does.
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
