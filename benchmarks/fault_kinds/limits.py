"""Fills disks, and limits file sizes, descriptors, processes and address space."""

from __future__ import annotations

import os
import random
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

from fault_kinds.harness import Bench, Kind, Outcome, judge_after
from fault_kinds.kills import WORKERS


def full_disk(bench: Bench, draw: random.Random) -> Outcome:
    """Fills the disk during the run; then space is freed."""
    mount, size = bench.place(), draw.randrange(4, 120) * 1024
    mount.mkdir()
    disk = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)]
    if os.getuid() or subprocess.run(disk, check=False, capture_output=True).returncode:
        return Outcome("skipped", note="no right to mount a tmpfs")
    try:
        begin = ("run", "--config", bench.settings(), "--quiet")
        ended = bench.call(*begin, "--out", mount / "run")
        subprocess.run(["mount", "-o", "remount,size=50m", mount], check=True)
        return judge_after(ended, bench, begin, mount / "run", bench.whole())
    finally:
        subprocess.run(["umount", "-l", mount], check=False)


def large_files(bench: Bench, draw: random.Random) -> Outcome:
    """Sets RLIMIT_FSIZE: no file may grow beyond a limit."""
    return _limited(bench, resource.RLIMIT_FSIZE, lambda: draw.randrange(2_000, 12_000), {})


def descriptors(bench: Bench, draw: random.Random) -> Outcome:
    """Sets RLIMIT_NOFILE: only a few files may be open."""
    more = draw.randrange(1, 14)
    return _limited(bench, resource.RLIMIT_NOFILE, lambda: more + 3, WORKERS)


def processes(bench: Bench, draw: random.Random) -> Outcome:
    """Sets RLIMIT_NPROC: the user (but not root) may have only a few processes and threads."""
    if not os.getuid():
        return Outcome("skipped", note="the superuser has no such limit")
    return _limited(bench, resource.RLIMIT_NPROC, lambda: draw.randrange(1, 6), WORKERS)


def memory(bench: Bench, draw: random.Random) -> Outcome:
    """Sets RLIMIT_AS: only a little more memory may be mapped than the package itself takes."""
    more = draw.randrange(0, 20_000_000)

    def bytes_now() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + more

    return _limited(bench, resource.RLIMIT_AS, bytes_now, {} if draw.random() < 0.5 else WORKERS)


def _limited(bench: Bench, limit: int, value: Callable[[], int], execution: dict[str, object]) -> Outcome:
    out = bench.place()
    begin = ("run", "--config", bench.settings(execution=execution), "--quiet")

    def set_limit() -> None:
        resource.setrlimit(limit, (value(), resource.getrlimit(limit)[1]))

    ended = bench.call(*begin, "--out", out, prepare=set_limit)
    return judge_after(ended, bench, begin, out, bench.whole())


KINDS = [
    Kind("disk full, then room and --resume or anew", 40, full_disk),
    Kind("limit on files' sizes (FSIZE)", 40, large_files),
    Kind("limit on open files (NOFILE)", 30, descriptors),
    Kind("limit on processes (NPROC)", 10, processes),
    Kind("limit on address space (AS)", 40, memory),
]
