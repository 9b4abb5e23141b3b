"""Ending a run between two rounds when it is asked for, and workers when nobody waits for them any more."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

PR_SET_PDEATHSIG = 1
"""Linux: which signal a process gets when its parent ends."""


class StopRequest:
    """Whether somebody has asked for the end."""

    def __init__(self) -> None:
        self.made = False

    def __bool__(self) -> bool:
        return self.made


@contextmanager
def stop_on_signals(told: Callable[[str], None]) -> Iterator[StopRequest]:
    """Inside, the first SIGINT or SIGTERM only makes the request; a second SIGINT interrupts as ever.

    Signals can be handled in the main thread only; elsewhere nothing changes.

    Args:
        told: called with the signal's name when the request is made.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if request and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not request:
            request.made = True
            told(signal.Signals(number).name)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


def _prctl(option: int, value: int) -> int:
    """The system call; 0 where it did what was asked."""
    result: int = ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)
    return result
