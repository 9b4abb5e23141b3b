"""Files of text: which entries of a folder are data, and what a file holds, unpacked within a limit."""

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
"""Bytes that a compressed file may have when it is unpacked, where settings say nothing else."""
UnpackedLimit = Annotated[int, Field(ge=1, le=2**63 - 1)]
UNPACKERS: Mapping[str, Callable[[Path], BufferedIOBase]] = {
    ".gz": GzipFile,
    ".bz2": BZ2File,
    ".xz": LZMAFile,
}
"""By the ending of compressed files."""
NO_DATA = re.compile(
    r"\..*|__MACOSX|@eaDir|lost\+found|\$RECYCLE\.BIN|System Volume Information|Thumbs\.db|desktop\.ini"
    r"|.*~|#.*#|.*\.(bak|orig|old|swp|swo|tmp)",
    re.I,
)
"""What systems and editors leave beside data: hidden entries, folders of their own, backup copies."""
COPIED = re.compile(r"(?P<one>.+?)(?: ?\(\d+\)| - Copy(?: \(\d+\))?| copy(?: \d+)?)|Copy of (?P<other>.+)")
"""How systems name the copy of a file, without its ending."""


def entries(folder: Path) -> list[Path]:
    """The entries of a folder that may be data, by name: see `NO_DATA`.

    A file whose name says that it is the copy of another one beside it is left out where it is one.

    Raises:
        OSError: the folder cannot be read.
    """
    found = sorted(item for item in folder.iterdir() if not NO_DATA.fullmatch(item.name))
    return [item for item in found if not _is_copy(item)]


def is_data(path: PurePath) -> bool:
    """Whether a path, relative to the data's folder, may be data by the names of all its parts."""
    return not any(NO_DATA.fullmatch(name) for name in path.parts)


def unpacked_suffix(path: PurePath) -> str:
    """The ending of a file's name in lower case, without that of its compression."""
    packed = path.suffix.lower() in UNPACKERS
    return (PurePath(path.stem) if packed else path).suffix.lower()


def check_file(path: Path) -> None:
    """Makes sure that a path is no device or pipe, at which a program could wait forever, and no folder.

    Raises:
        InputError: it is one.
        OSError: it cannot be looked at.
    """
    if path.exists() and not path.is_file():
        raise InputError("data.source", str(path), "a file, no folder, device or pipe")


def read_bytes(path: Path, limit: int = UNPACKED_LIMIT) -> bytes:
    """What a file holds, unpacked where its name says that it is compressed.

    Args:
        path: of the file.
        limit: bytes that a compressed file may have when it is unpacked.

    Raises:
        InputError: it cannot be read, is no file, or holds more than the limit.
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
    """A file's text, without a byte order mark; every line ends with a line feed.

    Args:
        path: of the file.
        limit: see `read_bytes`.

    Raises:
        InputError: it cannot be read, or is not UTF-8, with the line; or see `read_bytes`.
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
    """The lines of a text with their line feeds, one at a time: a list of them may take far more memory."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def as_path(source: str, location: str) -> Path:
    """The path of a file or a folder that the settings name, with the home in place of ``~``.

    Raises:
        InputError: it cannot be looked at, or nothing is there.
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
    """Whether it is a file beside another one whose copy its name says it is, and holds the same."""
    suffixes = "".join(path.suffixes[-2:] if path.suffix.lower() in UNPACKERS else path.suffixes[-1:])
    match = COPIED.fullmatch(path.name.removesuffix(suffixes))
    if match is None:
        return False
    other = path.with_name((match["one"] or match["other"]) + suffixes)
    return path.is_file() and other.is_file() and filecmp.cmp(path, other, shallow=False)
