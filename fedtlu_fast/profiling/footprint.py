"""Runs a command and measures the peak memory of all its processes (Linux)."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SAMPLED_EVERY = 0.2
"""Seconds between two measurements of the memory."""


@dataclass(frozen=True)
class Finished:
    """Holds the result of a command.

    Attributes:
        code: exit code.
        out: its standard output.
        err: its standard error.
        peak_bytes: largest sum of the memory of its processes, shared pages counted once.
    """

    code: int
    out: str
    err: str
    peak_bytes: int


def run_measured(command: Sequence[str], environment: dict[str, str], limit: float) -> Finished:
    """Runs a command to its end.

    Args:
        command: the program and its arguments.
        environment: its variables.
        limit: seconds after which it is killed.

    Raises:
        TimeoutError: it took longer.
    """
    process = subprocess.Popen(  # noqa: S603  (the command is the user's)
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    watch = _Watch(process.pid)
    watch.start()
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        _kill(process)
        raise TimeoutError(f"no end after {limit:g} s") from None
    except BaseException:  # such as Ctrl-C, after which nothing should go on
        _kill(process)
        raise
    finally:
        watch.ended.set()
        watch.join()
    return Finished(process.returncode, out, err, watch.peak)


def _kill(process: subprocess.Popen[str]) -> None:
    """Kills a process and all its descendants, and waits for its end."""
    for pid in _family(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


class _Watch(threading.Thread):
    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.root, self.peak, self.ended = root, 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SAMPLED_EVERY):
            started = time.perf_counter()
            self.peak = max(self.peak, sum(_held_bytes(pid) for pid in _family(self.root)))
            # Reading page tables costs time, which must not slow down the measured command.
            self.ended.wait(50 * (time.perf_counter() - started))


def _family(root: int) -> list[int]:
    """Returns a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _held_bytes(pid: int) -> int:
    """Returns the proportional set size: a page that n processes share counts 1/n in each."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
