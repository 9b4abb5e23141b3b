"""Measures how much of the machine this process may use: memory, CPU cores, processes, open files.

The tightest of three limits holds: the system's, the process's (ulimit), and its container's (control groups,
version 1 and 2, with every parent group). Linux shows them in files under /proc and /sys. Every function
takes the folder that holds these two, so that tests can imitate other machines.
"""

from __future__ import annotations

import errno
import os
import re
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedtlu_fast.errors import FedtluError

ROOT = Path("/")
LITTLE = 2**27
"""If fewer bytes than this are left, we assume that a library that fails without a reason lacks memory."""


LIBRARIES = 900_000_000
"""The address space in bytes that the libraries of a run take at least."""


@dataclass(frozen=True)
class Room:
    """Describes the memory that can be allocated now.

    Attributes:
        bytes: the number of bytes, at least 0.
        bound: the limit that holds, in words, for messages.
    """

    bytes: int
    bound: str

    def __str__(self) -> str:
        return f"{self.bytes / 1e9:.2f} GB {self.bound}"


def memory_room(root: Path = ROOT) -> Room:
    """Returns the memory that this process can allocate, including memory that the system would reclaim."""
    found = [_of_the_system(root), *_of_limits(root), *_of_groups(root)]
    return min(found, key=lambda room: room.bytes)


def cores(root: Path = ROOT) -> int:
    """Returns the number of CPU cores that this process may use; a container's quota is rounded up."""
    found = [_own_cores()]
    for group in _groups("cpu", root):
        words = _words(group / "cpu.max")
        quota = _number(group / "cpu.cfs_quota_us") if not words else _parsed(words[0])
        period = _number(group / "cpu.cfs_period_us") if len(words) < 2 else _parsed(words[1])
        if quota and period and quota > 0:  # -1 and max mean no quota
            found.append(-(-quota // period))
    return max(1, min(found))


def lies_in_memory(folder: Path, root: Path = ROOT) -> bool:
    """Tells whether files in a folder are kept in memory (tmpfs)."""
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    kinds = [kind for mounted, kind, *_ in _mounts(root) if mounted == number]
    return bool(kinds) and kinds[-1] in ("tmpfs", "ramfs")


def refusal(error: BaseException, root: Path = ROOT) -> str | None:
    """Describes the limit of the machine that caused an error; None if no limit did.

    Args:
        error: an error of the system, or of a library that does not name the limit.
        root: the folder that holds /proc and /sys.
    """
    text = str(error)
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.EMFILE:
        return f"this process may have {_soft('RLIMIT_NOFILE')} open files (ulimit -n)"
    if code == errno.ENFILE:
        return "the machine may have no more open files (fs.file-max)"
    if code == errno.EAGAIN or "can't start new thread" in text:
        return f"no more processes and threads can be started ({_processes(root)})"
    if code == errno.ENOMEM or isinstance(error, MemoryError) or _means_no_memory(error, root):
        return f"out of memory: {memory_room(root)}"
    return None


def check_room_for_libraries(root: Path = ROOT) -> None:
    """Checks that the limits of address space and processes leave room to load PyTorch and Transformers.

    Without this check a library would end the process with no message.

    Raises:
        FedtluError: A limit is too low.
    """
    limit = _limit("RLIMIT_AS")
    if limit is not None and limit < LIBRARIES:
        raise FedtluError(
            f"out of memory: `ulimit -v` allows {limit / 1e9:.2f} GB of address space, and PyTorch and "
            f"Transformers alone take about {LIBRARIES / 1e9:.2g} GB. Raise the limit"
        )
    found = [
        (_number(group / "pids.max"), _number(group / "pids.current")) for group in _groups("pids", root)
    ]
    rooms = [most - now for most, now in found if most is not None and now is not None]
    if rooms and min(rooms) < (threads := _threads_of_libraries() - 1):
        raise FedtluError(
            f"no more processes and threads can be started ({_processes(root)}): there is room for "
            f"{max(0, min(rooms))}, and the linear algebra libraries start {threads}. Raise the "
            f"limit, or set OPENBLAS_NUM_THREADS=1 and OMP_NUM_THREADS=1"
        )


def _threads_of_libraries() -> int:
    """Returns the number that the environment sets, else one per core; a quota makes no difference."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        if (said := _parsed(os.environ.get(name, ""))) is not None and said > 0:
            return said
    return _own_cores()


def _own_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _means_no_memory(error: BaseException, root: Path) -> bool:
    """Tells whether an error comes from a library that could not be loaded for lack of memory."""
    if isinstance(error, SystemError):
        return memory_room(root).bytes < LITTLE
    words = str(error).lower()
    return isinstance(error, ImportError) and (
        "failed to map segment" in words or "cannot allocate memory" in words
    )


def _processes(root: Path) -> str:
    bounds = [f"ulimit -u is {_soft('RLIMIT_NPROC')}"]
    for group in _groups("pids", root):
        limit = _number(group / "pids.max")
        if limit is not None:
            bounds.append(f"the container's limit is {limit} (pids.max)")
    return ", ".join(bounds)


def _soft(name: str) -> str:
    limit = _limit(name)
    return "unlimited" if limit is None else str(limit)


def _limit(name: str) -> int | None:
    """Returns a soft limit of this process; None if it is unlimited or the system does not have it."""
    if not hasattr(resource, name):
        return None
    soft: int = resource.getrlimit(getattr(resource, name))[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _of_the_system(root: Path) -> Room:
    meminfo = _table(root / "proc/meminfo")
    if "MemAvailable" in meminfo:
        room = 1024 * meminfo["MemAvailable"]
        if _number(root / "proc/sys/vm/overcommit_memory") == 2:
            room = min(room, max(0, 1024 * (meminfo["CommitLimit"] - meminfo["Committed_AS"])))
        return Room(room, "of memory are available")
    try:
        return Room(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "of memory are free")
    except (ValueError, OSError):  # macOS only gives the total
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return Room(whole // 2, "are half of the memory")


def _of_limits(root: Path) -> Iterator[Room]:
    taken = _table(root / "proc/self/status")
    for name, line, option in (("RLIMIT_AS", "VmSize", "-v"), ("RLIMIT_DATA", "VmData", "-d")):
        limit = _limit(name)
        if limit is not None and line in taken:
            left = max(0, limit - 1024 * taken[line])
            yield Room(left, f"are left of the {limit / 1e9:.2f} GB that `ulimit {option}` allows")


def _of_groups(root: Path) -> Iterator[Room]:
    for group in _groups("memory", root):
        for limit, usage in (
            ("memory.max", "memory.current"),
            ("memory.high", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            most, used = _number(group / limit), _number(group / usage)
            if most is None or used is None:
                continue
            # The system reclaims the memory of cached files when needed. In version 1, total_ includes the
            # groups below.
            stat = _table(group / "memory.stat")
            files = sum(
                stat.get(f"total_{kind}", stat.get(kind, 0)) for kind in ("active_file", "inactive_file")
            )
            left = max(0, most - max(0, used - files))
            yield Room(left, f"are left of the container's limit of {most / 1e9:.2f} GB ({limit})")


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Yields the folders of this process's control group and its parents, as far as they are visible."""
    own: dict[str, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, names, path = line.split(":", 2)
        own |= dict.fromkeys(names.split(","), path)
    for _, kind, options, top, mount in _mounts(root):
        mounted = kind == "cgroup2" or (kind == "cgroup" and controller in options.split(","))
        group = own.get("" if kind == "cgroup2" else controller)
        if mounted and group is not None:
            folder = root / mount.lstrip("/")
            yield folder
            for part in _below(group, top):
                folder /= part
                yield folder


def _mounts(root: Path) -> Iterator[tuple[str, str, str, str, str]]:
    """Yields mounts: device, kind, options, the mounted folder of the device, and the mount point."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        device, top, mount = before.split(" ")[2:5]
        kind, _, options = after.split(" ", 2)
        yield device, kind, options, _unescaped(top), _unescaped(mount)


def _below(path: str, top: str) -> Sequence[str]:
    """Returns the parts of a group's path below the mounted group; none if the group lies elsewhere."""
    parts, above = Path(path).parts[1:], Path(top).parts[1:]
    if ".." in parts or parts[: len(above)] != above:
        return ()  # a container shows its own group as the top
    return parts[len(above) :]


def _unescaped(word: str) -> str:
    """Decodes a path from mountinfo, which writes spaces and similar characters as octal numbers."""
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), word)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path)[:1] for word in line.split()]


def _number(path: Path) -> int | None:
    """Returns the number in a file; None if there is no file, or no number in it (such as max)."""
    words = _words(path)
    return _parsed(words[0]) if words else None


def _parsed(word: str) -> int | None:
    try:
        return int(word)
    except ValueError:
        return None


def _table(path: Path) -> dict[str, int]:
    """Reads a file of lines that hold a name and a number."""
    rows = (line.replace(":", " ").split() for line in _lines(path))
    found = ((row[0], _parsed(row[1])) for row in rows if len(row) > 1)
    return {name: number for name, number in found if number is not None}
