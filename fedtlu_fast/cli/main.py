"""The entry point of ``fedtlu``; it imports little, so that Ctrl-C works before the rest is loaded."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType


def main() -> None:
    """Runs the command line and ends the process with its exit code.

    While Python loads modules, and while it shuts down, Ctrl-C ends the process silently with exit code 130.
    """
    handled = signal.getsignal(signal.SIGINT)  # a background job ignores Ctrl-C and has to stay so
    if handled is signal.default_int_handler and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _leave)
    from fedtlu_fast.cli.app import run_command_line

    run_command_line()


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)
