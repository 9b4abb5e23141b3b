"""Ending a run between two rounds when it is asked for, and workers when nobody waits for them any more."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

PR_SET_PDEATHSIG = 1
"""Linux: which signal a process gets when its parent ends."""
STOPPING = (signal.SIGTERM, signal.SIGHUP)
"""Signals that ask for the end as Ctrl-C (SIGINT) does."""


class Terminated(KeyboardInterrupt):
    """What a signal of `STOPPING` raises, so that it ends what Ctrl-C ends.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


class StopRequest:
    """Whether somebody has asked for the end.

    Attributes:
        number: of the signal that asked; None before.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __bool__(self) -> bool:
        return self.number is not None


_raised = StopRequest()
"""The last signal for which `signals_interrupt` raised: some libraries swallow that at their import."""


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Inside, Ctrl-C raises KeyboardInterrupt and the signals of `STOPPING` raise `Terminated`.

    Signals that are ignored (as by nohup) stay so. Signals can be handled in the main thread only; elsewhere
    nothing changes.
    """

    def end(number: int, frame: FrameType | None) -> None:
        _raised.number = number
        _raise(number)

    with _handled((signal.SIGINT, *STOPPING), end):
        try:
            yield
        finally:
            _raised.number = None


def check_interrupt_was_not_lost() -> None:
    """Raises again what `signals_interrupt` raised and a library swallowed; call it before long work."""
    if _raised.number is not None:
        _raise(_raised.number)


def _raise(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(number)


@contextmanager
def stop_on_signals(told: Callable[[str], None]) -> Iterator[StopRequest]:
    """Inside, the first Ctrl-C or signal of `STOPPING` only makes the request; a second Ctrl-C interrupts.

    Signals can be handled in the main thread only; elsewhere nothing changes.

    Args:
        told: called with the signal's name when the request is made.
    """
    check_interrupt_was_not_lost()
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not request:
            request.number = number
            told(signal.Signals(number).name)

    with _handled((signal.SIGINT, *STOPPING), handle):
        yield request


@contextmanager
def _handled(numbers: Sequence[int], handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    # A handler that is no Python function is None, and could not be put back.
    handled = [number for number in numbers if before[number] not in (signal.SIG_IGN, None)]
    for number in handled:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])


def end_with_parent() -> None:
    """Ends this process when the one that started it is gone: nobody would know that it still works.

    On Linux the system sends SIGKILL, which ends a process that is stopped or at work in C too; it does so
    when the parent's thread ends that started this process. Elsewhere a thread looks on.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if sys.platform.startswith("linux") and not _prctl(PR_SET_PDEATHSIG, signal.SIGKILL):
        if os.getppid() != parent.pid:  # it ended before it could be arranged
            os._exit(1)
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def is_stopped(pid: int) -> bool:
    """Whether somebody has stopped a process (SIGSTOP); False where /proc does not say so."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1] in ("T", "t")
    except OSError:
        return False


def _prctl(option: int, value: int) -> int:
    """The system call; 0 where it did what was asked."""
    result: int = ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)
    return result
