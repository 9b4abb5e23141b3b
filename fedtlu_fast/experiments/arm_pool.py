"""Processes that run the arms of a comparison: how they start, end, and react to signals."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from fedtlu_fast.errors import FedtluError, WorkerError
from fedtlu_fast.executors.patience import STOPPED, Patience, StoppedNotice
from fedtlu_fast.machine import refusal
from fedtlu_fast.stopping import STOPPING, Terminated, end_with_parent, is_stopped
from fedtlu_fast.wording import either

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event  # which cannot be loaded without semaphores

SIGNALS = (signal.SIGINT, *STOPPING)
_ended: Event | None = None
"""Set in a process for arms if no further arm is to begin; see `begin_worker`."""


class StoppedProcessError(FedtluError):
    """A process was stopped for longer than the settings allow; all processes of its pool have been ended."""


class ArmPool:
    """The processes for arms, for the process that waits for them.

    Attributes:
        executor: runs the arms in the processes.
    """

    def __init__(self, executor: Executor, limit: float | None) -> None:
        """Takes over an executor that has not started its processes yet.

        Args:
            executor: see the class.
            limit: seconds that a process may be stopped (``execution.client_seconds``); None: no limit.
        """
        self.executor = executor
        self._limit = limit
        self._others = set(active_children())
        self._patience, self._notice = Patience(), StoppedNotice("its arm waits")

    def processes(self) -> list[BaseProcess]:
        """Returns the processes that are alive now."""
        return [process for process in active_children() if process not in self._others]

    def stopped(self) -> dict[int, BaseProcess]:
        """Returns the processes that are stopped now (SIGSTOP), by their process ids."""
        return {one.pid: one for one in self.processes() if one.pid is not None and is_stopped(one.pid)}

    def watch(self, between: float) -> None:
        """Warns of stopped processes, and ends all processes if one has been stopped for too long.

        Args:
            between: the number of seconds, about, between two calls.

        Raises:
            StoppedProcessError: a process has exceeded the limit. Arms can go on from their checkpoints in
                other processes.
        """
        stopped = self.stopped()
        signs = dict.fromkeys(stopped, STOPPED)
        late = [] if self._limit is None else self._patience.late(signs, self._limit, between)
        if late:
            for process in self.processes():
                process.kill()  # the executor would wait for a stopped process
            raise StoppedProcessError(
                f"process {late[0]} was stopped (SIGSTOP) for longer than "
                f"execution.client_seconds={self._limit:g}"
            )
        self._notice.look(stopped, between)


@contextmanager
def arm_pool(count: int, limit: float | None) -> Iterator[ArmPool]:
    """Starts processes that run arms, and ends them; if an arm fails, no further arm begins.

    Args:
        count: the number of processes.
        limit: seconds that a process may be stopped (``execution.client_seconds``); None: no limit.
    """
    # spawn: a forked child of a process that has used torch's threads can hang.
    context = get_context("spawn")
    # Python's resource tracker starts with the event. It inherits that SIGHUP is blocked: one that goes to
    # all processes of a terminal would end it, and its successor would print tracebacks.
    with signals_later(), limits_named():
        ended = context.Event()
        executor = ProcessPoolExecutor(count, context, initializer=begin_worker, initargs=(ended,))
    pool = ArmPool(executor, limit)
    try:
        yield pool
    except Terminated:
        # Unlike a Ctrl-C, which goes to all processes of a terminal, it came to this one alone.
        for process in pool.processes():
            if process.pid is not None:
                os.kill(process.pid, signal.SIGINT)
        raise
    finally:
        ended.set()
        for process in pool.stopped().values():
            process.kill()  # a stopped process would never end
        executor.shutdown(cancel_futures=True)


@contextmanager
def limits_named() -> Iterator[None]:
    """Turns errors of the system while processes start into a message that says what to do."""
    try:
        yield
    except (BrokenProcessPool, FedtluError):
        raise
    except (OSError, RuntimeError, ImportError) as error:  # NotImplementedError too: without semaphores
        reason = refusal(error)
        if reason is None and getattr(error, "errno", None) in (errno.EROFS, errno.EACCES, errno.ENOSPC):
            reason = (
                f"their semaphores lie in /dev/shm, where nothing can be written: {error}. Mount it for "
                f"writing (docker run --tmpfs /dev/shm), or make room in it"
            )
        raise WorkerError(
            f"processes for the arms cannot be started: {reason or error}. Single runs "
            f"({either('simulate', 'fedtlu run')}) need none; fix this"
        ) from error


@contextmanager
def signals_later() -> Iterator[None]:
    """Delays Ctrl-C and the signals of `STOPPING` while processes start.

    The processes inherit the blocked signals, so that a signal while they load prints no tracebacks.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    # A handler that is no Python function is None, and could not be put back; what is ignored stays so.
    handled = [number for number in SIGNALS if before[number] not in (signal.SIG_IGN, None)]
    for number in handled:
        signal.signal(number, lambda number, frame: came.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number in handled:
            signal.signal(number, before[number])
    if came:
        signal.raise_signal(came[0])


def begin_worker(ended: Event) -> None:
    """Makes a process ready for arms.

    Args:
        ended: an event that is set when no further arm is to begin. Some arms may wait here by then.
    """
    global _ended
    end_with_parent()
    _ended = ended
    # Between arms there is nothing to save; `_ended` says whether there is more to do. A SIGHUP goes to all
    # processes of a terminal: the parent decides what it means. SIGTERM is how the pool ends its processes.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def none_is_to_begin() -> bool:
    """Whether this is a process for arms in which no further arm is to begin."""
    return _ended is not None and _ended.is_set()
