"""Writes the files that the user names for results (``--csv``, ``--plot``)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedtlu_fast.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PNG = b"\x89PNG\r\n\x1a\n"
"""The first bytes of a picture."""


def check_place(field: str, path: Path | None, begins: bytes = b"") -> None:
    """Raises an error if a result file cannot be written there; called before minutes of work begin.

    Args:
        field: the option, for the message.
        path: the path of the file; None if there will be none.
        begins: the first bytes of such files. A file with other ones is never replaced, as it may be the
            user's model or data.

    Raises:
        InputError: The path is a directory, its parent is not a directory, or another file is there.
    """
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(field, str(path), "a file in a directory that exists")
    if begins and path.is_file() and not _begins_with(path, begins):
        expected = "a new file, or one that an earlier command wrote there, which is replaced"
        raise InputError(field, str(path), expected, "Name another file, or remove this one.")


def header(columns: Iterable[str]) -> bytes:
    """Returns the first line of a CSV file with these columns, for `check_place`."""
    return ",".join(columns).encode() + b"\r\n"


def header_of(row_type: type[Any]) -> bytes:
    """Returns the first line of a CSV file of `write_csv`, for `check_place`."""
    return header(field.name for field in fields(row_type))


def _begins_with(path: Path, begins: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(begins)) in (begins, b"")
    except OSError:
        return False


def write_csv(path: Path, row_type: type[Any], rows: Sequence[Any]) -> None:
    """Writes dataclass instances, one per line, below a line of their fields' names.

    Raises:
        InputError: The file cannot be written.
    """
    write_rows(path, [field.name for field in fields(row_type)], [asdict(row) for row in rows])


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes mappings, one per line, below a line of the columns' names.

    Raises:
        InputError: The file cannot be written, or another file is there (see `check_place`).
    """
    check_place("--csv", path, header(columns))
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise InputError("--csv", str(path), f"a file that can be written; {error.strerror}") from error


def write_plot(path: Path, make: Callable[[], Figure]) -> None:
    """Draws a figure into a PNG file; if that fails, prints a line about it and lets the command go on.

    Args:
        path: the path of the file.
        make: a function that makes the figure.

    Raises:
        InputError: The file cannot be written, or another file is there (see `check_place`).
    """
    from fedtlu_fast.report.pages.parts import attempt, png

    check_place("--plot", path, PNG)
    picture = attempt(f"the picture {path}", lambda: png(make))
    if picture is None:
        return
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise InputError("--plot", str(path), f"a file that can be written; {error.strerror}") from error
