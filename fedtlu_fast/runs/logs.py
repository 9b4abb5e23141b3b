"""The lines of a log, and the running digest that a checkpoint and a finished run record of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedtlu_fast.errors import InputError
from fedtlu_fast.runs.files import read_file


class LogDigests:
    """SHA-256 of a log's lines so far, and of all but the last of them.

    A round that is broken off has written some of its lines; the checkpoint of the round before is still due.
    """

    def __init__(self, lines: Iterable[bytes] = ()) -> None:
        """Begins with these lines."""
        self._count = 0
        self._before = self._now = hashlib.sha256()
        for line in lines:
            self.add(line)

    def add(self, line: bytes) -> None:
        """Takes one more line into account."""
        following = self._now.copy()
        following.update(line)
        self._count, self._before, self._now = self._count + 1, self._now, following

    def after(self, count: int) -> str:
        """The digest of the first `count` lines: of all, or of all but one."""
        if count == self._count:
            return self._now.hexdigest()
        if count == self._count - 1:
            return self._before.hexdigest()
        raise ValueError(f"lines: got {count}; expected {self._count} or one less")


def read_lines(path: Path) -> list[bytes]:
    """The lines of a log with their line ends; a last one without is left out. None where there is no file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        data = read_file(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(str(path), error.strerror, "a log as the run wrote it") from None
    return [line + b"\n" for line in data.split(b"\n")[:-1]]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a log as mappings, one a round; the first damaged line ends them.

    Raises:
        InputError: it cannot be read.
    """
    rows: list[dict[str, Any]] = []
    for line in read_lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict) or row.get("round") != len(rows) + 1:
            break
        rows.append(row)
    return rows


def changed_log(folder: Path, digests: Mapping[str, str], rounds: int) -> str | None:
    """Says which log does not begin with the lines that were written; None when all do.

    Args:
        folder: of the logs.
        digests: of their first `rounds` lines, by name, as they were written.
        rounds: how many.
    """
    for name, digest in digests.items():
        try:
            lines = read_lines(folder / name)[:rounds]
        except InputError as error:
            return f"{name}: {error.value}"
        if len(lines) < rounds:
            return f"{name} has {len(lines)} of {rounds} lines"
        if sha256_of(lines) != digest:
            return f"{name} was changed in its first {rounds} lines" if rounds else f"{name} was changed"
    return None


def sha256_of(lines: Sequence[bytes]) -> str:
    """The digest of these lines."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
    return digest.hexdigest()
