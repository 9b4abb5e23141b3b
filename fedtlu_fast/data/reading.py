"""Lists the data files of a folder, and reads files, which it unpacks up to a limit."""

from __future__ import annotations

import filecmp
import re
import zlib
from bz2 import BZ2File
from collections.abc import Callable, Iterator, Mapping
from gzip import GzipFile
from io import BufferedIOBase
from lzma import LZMAError, LZMAFile
from pathlib import Path, PurePath
from typing import Annotated

from pydantic import Field

from fedtlu_fast.errors import InputError
from fedtlu_fast.wording import either

UNPACKED_LIMIT = 2**29
"""Default limit of the bytes to which a compressed file may unpack."""
UnpackedLimit = Annotated[int, Field(ge=1, le=2**63 - 1)]
UNPACKERS: Mapping[str, Callable[[Path], BufferedIOBase]] = {
    ".gz": GzipFile,
    ".bz2": BZ2File,
    ".xz": LZMAFile,
}
"""The class that opens a compressed file, by the file's ending."""
NO_DATA = re.compile(
    r"\..*|__MACOSX|@eaDir|lost\+found|\$RECYCLE\.BIN|System Volume Information|Thumbs\.db|desktop\.ini"
    r"|.*~|#.*#|.*\.(bak|orig|old|swp|swo|tmp)",
    re.I,
)
"""Names of entries that operating systems and editors leave beside data: hidden entries, backup copies."""
COPIED = re.compile(r"(?P<one>.+?)(?: ?\(\d+\)| - Copy(?: \(\d+\))?| copy(?: \d+)?)|Copy of (?P<other>.+)")
"""Names that operating systems give to the copy of a file, without its ending."""


def entries(folder: Path) -> list[Path]:
    """Returns the entries of a folder that may be data, sorted by name, without those of `NO_DATA`.

    A file is left out if its name says that it is a copy of another file beside it, and both hold the same
    bytes.

    Raises:
        OSError: the folder cannot be read.
    """
    found = sorted(item for item in folder.iterdir() if not NO_DATA.fullmatch(item.name))
    return [item for item in found if not _is_copy(item)]


def is_data(path: PurePath) -> bool:
    """Tells whether a path, relative to the data's folder, may be data: none of its parts is in `NO_DATA`."""
    return not any(NO_DATA.fullmatch(name) for name in path.parts)


def unpacked_suffix(path: PurePath) -> str:
    """Returns the ending of a file's name in lower case; an ending of compression is removed first."""
    packed = path.suffix.lower() in UNPACKERS
    return (PurePath(path.stem) if packed else path).suffix.lower()


def check_file(path: Path) -> None:
    """Checks that a path, if it exists, is an ordinary file; reading a device or a pipe could wait forever.

    Raises:
        InputError: the path is a folder, a device or a pipe.
        OSError: the path cannot be examined.
    """
    if path.exists() and not path.is_file():
        raise InputError("data.source", str(path), "a file, no folder, device or pipe")


def read_bytes(path: Path, limit: int = UNPACKED_LIMIT) -> bytes:
    """Returns the bytes of a file, unpacked if its name says that it is compressed.

    Args:
        path: the file.
        limit: largest number of bytes to which a compressed file may unpack.

    Raises:
        InputError: the file cannot be read, is not an ordinary file, or unpacks to more than the limit.
    """
    unpacker = UNPACKERS.get(path.suffix.lower())
    try:
        check_file(path)
        if unpacker is None:
            return path.read_bytes()
        with unpacker(path) as file:
            data: bytes = file.read(limit + 1)
    except (OSError, EOFError, zlib.error, LZMAError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError("data.source", str(path), f"a readable file; {reason}") from None
    if len(data) > limit:
        raise InputError(
            "data.unpacked_limit",
            limit,
            f"as many bytes as {path} unpacks to, which are more",
            f"Raise it, as by {either('', '--set ')}data.unpacked_limit=4000000000, if the file comes from "
            f"where it should.",
        )
    return data


def read_text(path: Path, limit: int = UNPACKED_LIMIT) -> str:
    """Returns a file's text, without a byte order mark and with line feeds as line ends.

    Args:
        path: the file.
        limit: see `read_bytes`.

    Raises:
        InputError: the file is not UTF-8 (the message names the line), or see `read_bytes`.
    """
    data = read_bytes(path, limit)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        raise InputError(
            "data.source",
            str(path),
            f"UTF-8 text; byte {error.start} is {data[error.start]:#04x}, in line {line}",
            f"Convert it (iconv {'-f utf-16 ' if wide else ''}-t utf-8) or move it elsewhere.",
        ) from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def lines_of_text(text: str) -> Iterator[str]:
    """Yields the lines of a text with their line feeds; a list of them could take far more memory."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def as_path(source: str, location: str) -> Path:
    """Returns the path of a file or a folder, with ``~`` replaced by the home directory.

    Args:
        source: the source as settings write it, for messages.
        location: the path as settings write it.

    Raises:
        InputError: the path cannot be examined, or nothing exists there.
    """
    try:
        path = Path(location).expanduser()
        exists = path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a folder that is closed, no such user
        raise InputError("data.source", source, f"a path that can be read; {error}") from None
    if not exists:
        raise InputError("data.source", source, "a file or a directory that exists")
    return path


def _is_copy(path: Path) -> bool:
    """Tells whether a file is a copy of a file beside it, by its name and by its bytes."""
    suffixes = "".join(path.suffixes[-2:] if path.suffix.lower() in UNPACKERS else path.suffixes[-1:])
    match = COPIED.fullmatch(path.name.removesuffix(suffixes))
    if match is None:
        return False
    other = path.with_name((match["one"] or match["other"]) + suffixes)
    return path.is_file() and other.is_file() and filecmp.cmp(path, other, shallow=False)
