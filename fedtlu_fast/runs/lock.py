"""One run at a time in a directory: between processes, and between the threads of one process.

While a run holds the lock, the file says who holds it. A run that ends by itself empties the file; a run that
was killed cannot, so that others see that it was killed.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import json
import logging
import os
import platform
import struct
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from weakref import WeakValueDictionary

from fedtlu_fast.runs.files import open_file

logger = logging.getLogger(__name__)

HELD = (errno.EACCES, errno.EAGAIN)
"""What the operating system answers where another process holds the lock."""

_mutex = threading.RLock()
_here: WeakValueDictionary[tuple[int, int, int], DirectoryLock] = WeakValueDictionary()
"""Locks of this process by process, device and inode: the system's own keep only other processes out."""


@dataclass(frozen=True)
class Holder:
    """The process that writes to a directory, or that was killed while it did.

    Attributes:
        pid: its process id; 0 if the file does not say.
        host: the name of its machine; empty if the file does not say.
        began: when it took the lock, in seconds since 1970; 0 if the file does not say.
        alive: whether it still holds the lock; None if nobody can know, because the file system cannot lock
            and the process is on another machine.
    """

    pid: int
    host: str
    began: float
    alive: bool | None


class DirectoryLock:
    """A lock on a file, held until `release`, or until nobody refers to it any more.

    The lock is the process's own (fcntl), so that a worker that was forked does not hold it when the process
    that started it is gone.
    """

    def __init__(self, path: Path) -> None:
        """Takes the lock and writes who holds it; the file is made when there is none.

        Raises:
            BlockingIOError: another run, of this process or another, holds it.
            OSError: the file cannot be opened, or is not a file.
        """
        self._handle, self._process = -1, os.getpid()
        with _mutex:
            # Closing any descriptor of the file would give the system's lock away: it is opened only when
            # no lock of this process is on it.
            if path.exists() and _key(os.lstat(path)) in _here:
                raise BlockingIOError(errno.EAGAIN, "locked in this process", str(path))
            self._handle = open_file(path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in HELD:
                    self.release()
                    raise BlockingIOError(errno.EAGAIN, "locked by another process", str(path)) from None
                _warn_once(str(path.parent.resolve()), error.strerror or "")
            _here[_key(os.fstat(self._handle))] = self
            self.holder = Holder(self._process, platform.node(), time.time(), True)
            self._say()

    def release(self) -> None:
        """Gives the lock up; a second time does nothing."""
        with _mutex:
            if self._handle >= 0:
                handle, self._handle = self._handle, -1
                key = _key(os.fstat(handle))
                if _here.get(key) is self:
                    del _here[key]
                    # A forked worker that drops its copy of this object ends nothing.
                    if self._process == os.getpid():
                        with suppress(OSError):
                            os.ftruncate(handle, 0)
                os.close(handle)

    def __del__(self) -> None:
        self.release()

    def _say(self) -> None:
        said = {"pid": self.holder.pid, "host": self.holder.host, "began": self.holder.began}
        # On a full disk the run has a message of its own; who holds the lock is only for others to read.
        with suppress(OSError):
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, json.dumps(said).encode() + b"\n", 0)


def holder_of(path: Path) -> Holder | None:
    """Returns who holds a lock, or who was killed while holding it.

    The lock is not taken, so that a run that begins at this moment is not refused.

    Args:
        path: the lock's file, which may be missing.

    Returns:
        None if nobody holds the lock and its last holder gave it up.
    """
    with _mutex:
        try:
            ours = _here.get(_key(os.lstat(path)))
            if ours is not None:  # closing another descriptor of the file would give the lock away
                return ours.holder
            handle = open_file(path, os.O_RDONLY)
        except OSError:
            return None
        try:
            locked, text = _is_locked(handle), os.pread(handle, 4096, 0)
        finally:
            os.close(handle)
    try:
        said = json.loads(text)
        pid, host, began = int(said["pid"]), str(said["host"]), float(said["began"])
    except (ValueError, KeyError, TypeError):
        return Holder(0, "", 0.0, True) if locked else None  # a run of an earlier version
    if locked is None and host == platform.node():
        locked = _exists(pid)
    return Holder(pid, host, began, locked)


def _is_locked(handle: int) -> bool | None:
    """Whether another process holds a lock on a file; None if the file system cannot say."""
    # struct flock: Linux has the kind of the lock in front, other systems after the three numbers.
    linux = sys.platform == "linux"
    form = "hhqqi" if linux else "qqihh"
    asked = (fcntl.F_WRLCK, 0, 0, 0, 0) if linux else (0, 0, 0, fcntl.F_WRLCK, 0)
    try:
        answer = fcntl.fcntl(handle, fcntl.F_GETLK, struct.pack(form, *asked))
    except OSError:
        return None
    return bool(struct.unpack(form, answer)[0 if linux else 3] != fcntl.F_UNLCK)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@atexit.register
def _release_all() -> None:
    """Gives up what an error has left locked: a process that ends in an orderly way was not killed."""
    for lock in list(_here.values()):
        lock.release()


@cache
def _warn_once(folder: str, reason: str) -> None:
    logger.warning(
        "%s: this file system cannot lock (%s); make sure yourself that no second process writes here",
        folder,
        reason,
    )


def _key(info: os.stat_result) -> tuple[int, int, int]:
    return os.getpid(), info.st_dev, info.st_ino
