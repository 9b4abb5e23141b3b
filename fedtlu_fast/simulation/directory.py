"""The files of one run: settings first, one line a round while it goes, the summary last."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedtlu_fast.config import RunConfig
from fedtlu_fast.errors import InputError
from fedtlu_fast.settings import load_config
from fedtlu_fast.simulation.state import storage_error

METRICS = "metrics.jsonl"
SELECTION = "selection.jsonl"
TIMINGS = "timings.jsonl"
LOGS = (METRICS, SELECTION, TIMINGS)
COMPARISON = "comparison.yaml"
"""What only the directory of a comparison holds."""
LOCK = ".lock"
FULL = (errno.ENOSPC, errno.EDQUOT)


class RunDirectory:
    """Where a run writes; see the class methods for how one comes about."""

    def __init__(self, path: Path) -> None:
        """Names the directory; nothing is read or written."""
        self.path = path
        self.checkpoints = path / "checkpoints"

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> RunDirectory:
        """A new run in a new or empty directory.

        Raises:
            InputError: something is there already; nothing of it is touched.
            StorageError: it cannot be written.
        """
        cls.check_free(path)
        directory = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / LOCK).touch()
        except OSError as error:
            if error.errno in FULL:
                raise storage_error(path, error) from error
            raise InputError(
                "--out", str(path), f"a directory that can be written; {error.strerror}", "Choose another."
            ) from error
        directory.lock()
        directory.write("config.yaml", config.to_yaml())
        return directory

    @staticmethod
    def check_free(path: Path) -> None:
        """Makes sure that a new run may write here.

        Raises:
            InputError: something is there already, or it cannot be looked into.
        """
        try:
            if not os.path.lexists(path):
                return
            held = "" if path.is_dir() else "a file"
            # A run that was killed while it wrote its first file has left these and nothing else.
            if not held and {item.name for item in path.iterdir()} - {".config.yaml.tmp", LOCK}:
                held = "another run" if (path / "config.yaml").exists() else "other files"
        except OSError as error:
            raise InputError("--out", str(path), f"a new or empty directory; {error.strerror}") from error
        if held:
            raise InputError(
                "--out",
                str(path),
                f"a new or empty directory; this is {held}"
                if held == "a file"
                else f"a new or empty directory; this one holds {held}",
                "Choose another, or go on with that run by --resume."
                if held == "another run"
                else "Choose another.",
            )

    @classmethod
    def open(cls, path: Path, field: str = "--resume") -> tuple[RunDirectory, RunConfig]:
        """A run that was begun before, and its settings.

        Args:
            path: of the directory.
            field: what names it, for the message.

        Raises:
            InputError: there is none.
        """
        if not (path / "config.yaml").is_file():
            raise InputError(field, str(path), "a directory with the config.yaml of an earlier run")
        if (path / COMPARISON).exists():
            fix = "Use fedtlu compare." if field == "--resume" else "Name one of the runs in it."
            raise InputError(field, str(path), "the directory of a run; this is a comparison's", fix)
        return cls(path), load_config(path=path / "config.yaml")

    def lock(self) -> None:
        """Keeps other processes from writing here for as long as this object lives.

        Raises:
            InputError: another process does already.
            StorageError: the directory cannot be written.
        """
        try:
            self._lock = (self.path / LOCK).open("w")
        except OSError as error:
            raise storage_error(self.path / LOCK, error) from error
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Some network file systems cannot lock at all; there it is up to the user.
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise InputError(
                    "--resume",
                    str(self.path),
                    "a run that has stopped; another process is writing to this directory",
                    "Wait for it to end, or stop it.",
                ) from None

    def append(self, log: str, row: dict[str, Any]) -> None:
        """Adds one line to a log and hands it to the operating system.

        Raises:
            StorageError: it cannot be written.
        """
        target = self.path / log
        try:
            with target.open("a", encoding="utf-8") as file:
                file.write(dump_json(row) + "\n")
        except OSError as error:
            raise storage_error(target, error) from error

    def rows(self, log: str) -> list[dict[str, Any]]:
        """The complete lines of a log; one that a kill cut short, and what follows it, is left out."""
        target = self.path / log
        if not target.exists():
            return []
        rows: list[dict[str, Any]] = []
        for line in target.read_bytes().split(b"\n"):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(row, dict) or row.get("round") != len(rows) + 1:
                break
            rows.append(row)
        return rows

    def rewind(self, round_index: int) -> None:
        """Drops the lines of later rounds than the one that a run resumes from.

        Raises:
            InputError: lines of earlier rounds are missing; nothing was changed.
            StorageError: they cannot be written.
        """
        kept = {log: self.rows(log)[:round_index] for log in LOGS}
        for log in (METRICS, SELECTION):
            if len(kept[log]) < round_index:
                raise InputError(
                    str(self.path / log),
                    f"whole lines for {len(kept[log])} rounds",
                    f"one for each of the {round_index} rounds of the checkpoint",
                    "Start the run anew in another directory: the same settings give the same bits.",
                )
        for log, rows in kept.items():
            self.write(log, "".join(dump_json(row) + "\n" for row in rows))

    def sync(self) -> None:
        """Waits until the logs are on the disk, so that a checkpoint never knows more than they do.

        Raises:
            StorageError: they cannot be written.
        """
        for log in LOGS:
            try:
                with (self.path / log).open("ab") as file:
                    os.fsync(file.fileno())
            except OSError as error:
                raise storage_error(self.path / log, error) from error

    def write(self, name: str, text: str) -> None:
        """Writes a whole file under a temporary name and renames it.

        Raises:
            StorageError: it cannot be written; an earlier file of that name is intact.
        """
        target = self.path / name
        scratch = target.with_name(f".{target.name}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with scratch.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(target)
        except OSError as error:
            with suppress(OSError):
                scratch.unlink()
            raise storage_error(target, error) from error


def dump_json(value: Any, indent: int | None = None) -> str:
    """JSON as every reader takes it: NaN and Inf become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """A copy as JSON gives it back: NaN and Inf are None, sequences are lists."""
    return {key: _finite(value) for key, value in row.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return finite(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value
