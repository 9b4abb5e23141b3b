"""Keeps the results of long measurements in a file, so that an interrupted one continues where it was.

The file has one JSON object a line. The first one tells what is measured and where (settings, code, machine);
each of the others is the result of one run, written as soon as the run has ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fedtlu_fast
from fedtlu_fast.environment import differences, environment_facts
from fedtlu_fast.errors import InputError
from fedtlu_fast.machine import cores
from fedtlu_fast.runs.files import append_to_file, read_file, storage_error, sync_file
from fedtlu_fast.runs.logs import read_lines

Key = tuple[str, str, str, int]
"""Workload, system, mode and number of the run."""
KIND = "fedtlu bench-sim"
ENTRY = ("workload", "system", "mode", "run", "result")


class Journal:
    """The results so far, by `Key`; without a file they are only held in memory."""

    def __init__(self, path: Path | None, facts: Mapping[str, str], *, resume: bool = False) -> None:
        """Opens or begins a file.

        Args:
            path: the file; None: there is none.
            facts: what all results must have in common, by name; see `facts_here`.
            resume: whether the file may hold results, which are then kept.

        Raises:
            StorageError: the file cannot be written.
            InputError: the file holds results and `resume` is false; or they are of other settings, other
                code or another machine; or the file is no such journal.
        """
        self.path = path
        self.results: dict[Key, dict[str, Any]] = {}
        if path is None:
            return
        lines, first = read_lines(path), _line({"kind": KIND, **facts})
        if not lines:
            # A first line of ours that was never finished is written anew; nothing else is replaced.
            if path.exists() and not first.startswith(read_file(path)):
                raise InputError(str(path), "another file", f"a journal of {KIND}", "Name another file.")
            try:
                path.write_bytes(first)
            except OSError as error:
                raise storage_error(path, error) from None
            return
        if not resume:
            fix = "Continue with --resume, or remove the file."
            raise InputError(str(path), f"results of {len(lines) - 1} runs", "no file", fix)
        head = _read(path, lines[0])
        if head.pop("kind", None) != KIND:
            raise InputError(str(path), "another file", f"a journal of {KIND}", "Name another file.")
        if head != dict(facts):
            changed = differences(head, facts, "there")
            expected = "results of the same settings, code and machine"
            raise InputError(str(path), changed, expected, "Name another file, or remove this one.")
        for line in lines[1:]:
            found = _read(path, line)
            workload, system, mode, run, result = (found.get(name) for name in ENTRY)
            named = isinstance(workload, str) and isinstance(system, str) and isinstance(mode, str)
            if not (named and isinstance(run, int) and isinstance(result, dict)):
                raise _damaged(path)
            self.results[str(workload), str(system), str(mode), run] = result
        # What a killed process left of a line would spoil the next one.
        os.truncate(path, sum(map(len, lines)))

    def add(self, key: Key, result: dict[str, Any]) -> None:
        """Keeps a result; when this returns it is on the disk.

        Raises:
            StorageError: it cannot be written.
        """
        self.results[key] = result
        if self.path is not None:
            append_to_file(self.path, _line(dict(zip(ENTRY, (*key, result), strict=True))))
            sync_file(self.path)


def facts_here(settings: Mapping[str, object]) -> dict[str, str]:
    """Returns what decides the results of a measurement: its settings, our code, and the machine.

    Args:
        settings: of the measurement, by name.
    """
    own = {name: str(value) for name, value in settings.items()}
    machine = {"processor": _processor(), "cores": str(cores())}
    return own | environment_facts("cpu") | machine | {"code": _code()}


def _code() -> str:
    """Returns a digest of this package's files, the compiled ones too."""
    folder, found = Path(fedtlu_fast.__file__).parent, hashlib.sha256()
    for path in sorted([*folder.rglob("*.py"), *folder.glob("*.so")]):
        found.update(path.relative_to(folder).as_posix().encode() + b"\0")
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:12]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _read(path: Path, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _damaged(path)
    return found


def _damaged(path: Path) -> InputError:
    return InputError(str(path), "a damaged line", "the file as it was written", "Name another file.")
