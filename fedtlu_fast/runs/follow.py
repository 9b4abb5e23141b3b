"""Reads the logs of a run while another process writes them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fedtlu_fast.runs.files import open_file

TAIL = 2**18
"""The number of bytes at the end of a log in which its last rows are looked for."""


class LogFollower:
    """Reads the lines that have been added to a log since the last look.

    Attributes:
        damaged: the number of whole lines so far that hold no row.
    """

    def __init__(self, path: Path) -> None:
        """Begins at the start of a log, which may not exist yet."""
        self.path, self.damaged = path, 0
        self._file, self._offset = (0, 0), 0

    def look(self) -> tuple[bool, list[dict[str, Any]]]:
        """Returns whether the log begins anew, and the rows of its new lines.

        A log begins anew when its run was resumed from an earlier round: then the rows are all rows, and
        earlier ones no longer count. A last line without its end is left for the next look.

        Raises:
            OSError: The log cannot be read; a log that does not exist yet has no rows.
        """
        try:
            handle = open_file(self.path, os.O_RDONLY)
        except FileNotFoundError:
            anew = self._offset > 0
            self._file, self._offset = (0, 0), 0
            return anew, []
        try:
            state = os.fstat(handle)
            file = (state.st_dev, state.st_ino)
            anew = self._offset > 0 and (file != self._file or state.st_size < self._offset)
            if anew or file != self._file:
                self._file, self._offset, self.damaged = file, 0, 0
            data = _read(handle, self._offset, state.st_size - self._offset)
        finally:
            os.close(handle)
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        rows = []
        for line in whole.splitlines():
            row = _row(line)
            if row is None:
                self.damaged += 1
            else:
                rows.append(row)
        return anew, rows


def last_rows(path: Path) -> tuple[int, list[dict[str, Any]]]:
    """Returns the number of whole lines in a log, and the rows in its last `TAIL` bytes.

    Args:
        path: the log; one that cannot be read has no lines.
    """
    try:
        handle = open_file(path, os.O_RDONLY)
    except OSError:
        return 0, []
    try:
        size, lines, place = os.fstat(handle).st_size, 0, 0
        while chunk := os.pread(handle, 2**20, place):
            lines, place = lines + chunk.count(b"\n"), place + len(chunk)
        tail = _read(handle, max(0, size - TAIL), min(size, TAIL))
    finally:
        os.close(handle)
    whole = tail[: tail.rfind(b"\n") + 1].splitlines()
    # The first line may have lost its beginning, and is no row then.
    return lines, [row for line in whole if (row := _row(line)) is not None]


def first_row(path: Path) -> dict[str, Any] | None:
    """Returns the row in the first line of a log; None as long as there is no whole line, or no log."""
    try:
        with open(open_file(path, os.O_RDONLY), "rb") as file:
            line = file.readline()
    except OSError:
        return None
    return _row(line) if line.endswith(b"\n") else None


def _read(handle: int, place: int, size: int) -> bytes:
    parts = []
    while size > 0 and (part := os.pread(handle, size, place)):
        parts.append(part)
        place, size = place + len(part), size - len(part)
    return b"".join(parts)


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("round"), int) else None
