"""One run at a time in a directory: between processes, and between the threads of one process."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
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


class DirectoryLock:
    """A lock on a file, held until `release`, or until nobody refers to it any more.

    The lock is the process's own (fcntl), so that a worker that was forked does not hold it when the process
    that started it is gone.
    """

    def __init__(self, path: Path) -> None:
        """Takes the lock; the file is made when there is none, and never written.

        Raises:
            BlockingIOError: another run, of this process or another, holds it.
            OSError: the file cannot be opened, or is not a file.
        """
        self._handle = -1
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

    def release(self) -> None:
        """Gives the lock up; a second time does nothing."""
        with _mutex:
            if self._handle >= 0:
                handle, self._handle = self._handle, -1
                key = _key(os.fstat(handle))
                if _here.get(key) is self:
                    del _here[key]
                os.close(handle)

    def __del__(self) -> None:
        self.release()


@cache
def _warn_once(folder: str, reason: str) -> None:
    logger.warning(
        "%s: this file system cannot lock (%s); make sure yourself that no second process writes here",
        folder,
        reason,
    )


def _key(info: os.stat_result) -> tuple[int, int, int]:
    return os.getpid(), info.st_dev, info.st_ino
