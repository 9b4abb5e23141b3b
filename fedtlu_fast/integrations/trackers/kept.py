"""What trackers remember in a run's directory, so that a resumed run goes on with the same records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedtlu_fast.errors import InputError
from fedtlu_fast.runs.as_json import dump_json
from fedtlu_fast.runs.files import read_file, storage_error, write_file
from fedtlu_fast.runs.sealed import DamagedError, seal_json, unseal_json

FILE = "trackers.json"


@dataclass(frozen=True)
class Kept:
    """What one tracker remembers of a run.

    Attributes:
        logged: the last round that was logged when a checkpoint was written.
        memory: see `tracker.OpenTracker.memory`.
    """

    logged: int = 0
    memory: Mapping[str, str] = field(default_factory=dict)


def key_of(name: str, values: Mapping[str, Any]) -> str:
    """Returns the name under which a tracker remembers: with other parameters it is another tracker."""
    return f"{name} {json.dumps(values, sort_keys=True)}" if values else name


def read_kept(directory: Path, key: str) -> Kept:
    """Returns what a tracker remembers; nothing when it is new to the run.

    Raises:
        InputError: The file cannot be read, or was changed.
    """
    found = _entries(directory).get(key)
    return Kept() if found is None else Kept(found["logged"], found["memory"])


def write_kept(directory: Path, key: str, kept: Kept) -> None:
    """Writes what a tracker remembers, beside what other trackers do.

    Raises:
        InputError: The file cannot be read, or was changed.
        StorageError: It cannot be written.
    """
    entries = {**_entries(directory), key: {"logged": kept.logged, "memory": dict(kept.memory)}}
    data = dump_json(seal_json(entries), indent=1).encode() + b"\n"
    try:
        write_file(directory, FILE, data)
    except OSError as error:
        raise storage_error(directory / FILE, error) from error


def _entries(directory: Path) -> dict[str, Any]:
    path = directory / FILE
    try:
        return unseal_json(read_file(path))
    except FileNotFoundError:
        return {}
    except (DamagedError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        expected = "what trackers remember of this run, as it was written"
        raise InputError(
            str(path), reason, expected, "Remove the file: the trackers then begin new records."
        ) from None
