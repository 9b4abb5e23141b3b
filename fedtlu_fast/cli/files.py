"""Writes the files that the user names for results (``--csv``, ``--plot``)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedtlu_fast.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_place(field: str, path: Path | None) -> None:
    """Raises an error if a result file cannot be written there; called before minutes of work begin.

    Raises:
        InputError: The path is a directory, or its parent is not a directory.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise InputError(field, str(path), "a file in a directory that exists")


def write_csv(path: Path, row_type: type[Any], rows: Sequence[Any]) -> None:
    """Writes dataclass instances, one per line, below a line of their fields' names.

    Raises:
        InputError: The file cannot be written.
    """
    write_rows(path, [field.name for field in fields(row_type)], [asdict(row) for row in rows])


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes mappings, one per line, below a line of the columns' names.

    Raises:
        InputError: The file cannot be written.
    """
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
        InputError: The file cannot be written.
    """
    from fedtlu_fast.report.pages.parts import attempt, png

    picture = attempt(f"the picture {path}", lambda: png(make))
    if picture is None:
        return
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise InputError("--plot", str(path), f"a file that can be written; {error.strerror}") from error
