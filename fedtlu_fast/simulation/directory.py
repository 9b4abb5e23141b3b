"""The files of one run: settings first, one line a round while it goes, the summary last."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fedtlu_fast.config import RunConfig, load_config
from fedtlu_fast.errors import InputError
from fedtlu_fast.simulation.state import storage_error

METRICS = "metrics.jsonl"
SELECTION = "selection.jsonl"
TIMINGS = "timings.jsonl"
LOGS = (METRICS, SELECTION, TIMINGS)


class RunDirectory:
    """Where a run writes; see the class methods for how one comes about."""

    def __init__(self, path: Path) -> None:
        """Names the directory; nothing is read or written."""
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.plots = path / "plots"

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> RunDirectory:
        """A new run in a new or empty directory.

        Raises:
            InputError: something is there already; nothing of it is touched.
            StorageError: it cannot be written.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            held = "another run" if (path / "config.yaml").exists() else "other files"
            raise InputError(
                "--out",
                str(path),
                f"a new or empty directory; this one holds {held}",
                "Choose another, or go on with that run by --resume.",
            )
        directory = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(path, error) from error
        directory.write("config.yaml", config.to_yaml())
        return directory

    @classmethod
    def open(cls, path: Path) -> tuple[RunDirectory, RunConfig]:
        """A run that was begun before, and its settings.

        Raises:
            InputError: there is none.
        """
        if not (path / "config.yaml").is_file():
            raise InputError("--resume", str(path), "a directory with the config.yaml of an earlier run")
        return cls(path), load_config(path=path / "config.yaml")

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
        """The complete lines of a log; one that a kill cut short is left out."""
        target = self.path / log
        if not target.exists():
            return []
        rows = []
        for line in target.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def rewind(self, round_index: int) -> None:
        """Drops the lines of later rounds than the one that a run resumes from."""
        for log in LOGS:
            kept = [row for row in self.rows(log) if row["round"] <= round_index]
            self.write(log, "".join(dump_json(row) + "\n" for row in kept))

    def sync(self) -> None:
        """Waits until the logs are on the disk, so that a checkpoint never knows more than they do."""
        for log in LOGS:
            with (self.path / log).open("ab") as file:
                os.fsync(file.fileno())

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
            scratch.unlink(missing_ok=True)
            raise storage_error(target, error) from error


def dump_json(value: Any, indent: int | None = None) -> str:
    """JSON as every reader takes it: NaN and Inf become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value
