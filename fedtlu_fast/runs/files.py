"""Reading and writing the files of a directory that others may have changed.

Only regular files are read and written, never through a symbolic link in a file's or a folder's place:
nothing outside the directory changes, and no FIFO or device makes the program wait. A whole file is written
under a temporary name, brought to the disk and renamed; the directory is brought to the disk as well.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from fedtlu_fast.errors import StorageError

FULL = (errno.ENOSPC, errno.EDQUOT)
NO_DIRECTORY_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""What a file system answers that cannot bring a directory to the disk by itself."""


class NotAFileError(OSError):
    """Something else (a link, a FIFO, a folder) is where a file or a folder of the directory belongs."""

    def __init__(self, path: Path, mode: int, wanted: str = "a file") -> None:
        names = {
            stat.S_IFLNK: "a symbolic link",
            stat.S_IFDIR: "a folder",
            stat.S_IFREG: "a file",
            stat.S_IFIFO: "a FIFO",
            stat.S_IFSOCK: "a socket",
            stat.S_IFCHR: "a device",
            stat.S_IFBLK: "a device",
        }
        found = names.get(stat.S_IFMT(mode), "something else")
        super().__init__(errno.ELOOP, f"it is {found}, not {wanted}", str(path))


def read_file(path: Path) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: there is none, it cannot be read, or it is not a regular file (`NotAFileError`).
    """
    with open(open_file(path, os.O_RDONLY), "rb") as file:
        return file.read()


def file_sha256(path: Path) -> str:
    """SHA-256 of a regular file's content; raises as `read_file` does."""
    with open(open_file(path, os.O_RDONLY), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def append_to_file(path: Path, data: bytes) -> None:
    """Adds bytes at the end of a regular file, made when there is none; raises as `read_file` does."""
    with open(open_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as file:
        file.write(data)


def sync_file(path: Path) -> None:
    """Waits until a regular file, made when there is none, is on the disk; raises as `read_file` does."""
    handle = open_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(root: Path, name: str, data: bytes) -> None:
    """Writes a whole file under a temporary name and renames it.

    Args:
        root: the directory; it is made when there is none, and may be a link of the user's.
        name: of the file in it, perhaps in a folder (``plots/curves.png``).
        data: its content.

    Raises:
        OSError: it cannot be written; an earlier file of that name is intact.
    """
    target = root / name
    scratch = target.with_name(f".{target.name}.tmp")
    make_root(root)
    if target.parent != root:
        make_folder(target.parent)
    with suppress(FileNotFoundError):
        scratch.unlink()  # what a kill left, or a link: what it points to stays
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(scratch, flags, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(target)
    except OSError:
        with suppress(OSError):
            scratch.unlink()
        raise
    sync_folder(target.parent)


def make_root(path: Path) -> None:
    """Makes a directory and the missing ones above it; it may be there already.

    Raises:
        OSError: it cannot be made.
    """
    missing = []
    place = path
    while not place.exists() and place != place.parent:
        missing.append(place)
        place = place.parent
    path.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


def make_folder(path: Path) -> None:
    """Makes a folder inside a directory of ours; it may be there already, but not as a link.

    Raises:
        OSError: it cannot be made, or something else is in its place (`NotAFileError`).
    """
    if not check_folder(path):
        with suppress(FileExistsError):
            path.mkdir()
        sync_folder(path.parent)


def check_folder(path: Path) -> bool:
    """Whether there is such a folder inside a directory of ours.

    Raises:
        NotAFileError: something else is in its place.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISDIR(mode):
        raise NotAFileError(path, mode, "a folder")
    return True


def remove_tree(path: Path) -> None:
    """Removes a folder with all in it, or whatever else is in its place; what a link points to stays.

    Raises:
        OSError: it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def sync_folder(path: Path) -> None:
    """Waits until a directory's entries are on the disk, where the file system can say so.

    Raises:
        OSError: it cannot be written.
    """
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(handle)


def open_file(path: Path, flags: int) -> int:
    """A descriptor of a regular file; the caller closes it. Raises as `read_file` does."""
    # Looked at before it is opened, since opening a device can do something, and after, since it may have
    # been exchanged in between.
    with suppress(FileNotFoundError):
        _check_file(path, os.lstat(path).st_mode)
    # Without waiting: a FIFO would wait for its other end.
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    try:
        _check_file(path, os.fstat(handle).st_mode)
    except OSError:
        os.close(handle)
        raise
    return handle


def storage_error(path: Path, error: Exception) -> StorageError:
    """One message for a write that failed: what, why, and what to do."""
    reason = getattr(error, "strerror", None) or str(error)
    advice = "make room" if getattr(error, "errno", None) in (*FULL, errno.EFBIG) else "put that right"
    # Something else may be in the place of a folder on the way to the file.
    where = error.filename if isinstance(error, NotAFileError) else path
    return StorageError(
        f"{where} could not be written: {reason}. Everything written before it is intact; {advice}"
    )


def _check_file(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise NotAFileError(path, mode)
