"""The files of one run: settings first, one line a round while it goes, the summary last."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedtlu_fast.errors import InputError
from fedtlu_fast.runs.as_json import dump_json, finite
from fedtlu_fast.runs.files import (
    FULL,
    append_to_file,
    make_root,
    storage_error,
    sync_file,
    sync_folder,
    write_file,
)
from fedtlu_fast.runs.lock import DirectoryLock
from fedtlu_fast.runs.logs import LogDigests, read_lines, read_rows
from fedtlu_fast.runs.sealed import is_sealed_yaml, read_sealed_yaml, seal_yaml
from fedtlu_fast.runs.timings import read_timings, timing_line
from fedtlu_fast.wording import OUT, RESUME, RESUMED, either

METRICS = "metrics.jsonl"
SELECTION = "selection.jsonl"
TIMINGS = "timings.jsonl"
RESULTS = (METRICS, SELECTION)
"""Logs from which summary and reports follow: a checkpoint vouches for their lines up to its round.

A run that went on beside a damaged line would end with other sums and means than one that nobody disturbed.
"""
LOGS = (*RESULTS, TIMINGS)
SUMMARY = "summary.json"
SUMS = "SHA256SUMS"
"""Digests of the logs and the summary of a run that is finished, as ``sha256sum --check`` reads them."""
COSTS = "costs.json"
CONFIG = "config.yaml"
COMPARISON = "comparison.yaml"
"""What only the directory of a comparison holds."""
LOCK = ".lock"
PLAN = "experiment.yaml"
"""What only the directory of an experiment holds."""
BEGINNING = {CONFIG, COMPARISON, LOCK, *(f".{name}.tmp" for name in (CONFIG, COMPARISON, PLAN))}
"""All that a run, comparison or experiment leaves that was killed before it did anything."""


class RunDirectory:
    """Where a run writes; see the class methods for how one comes about."""

    def __init__(self, path: Path) -> None:
        """Names the directory; nothing is read or written."""
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._lock: DirectoryLock | None = None
        self._digests = {log: LogDigests() for log in LOGS}

    @classmethod
    def create(cls, path: Path, settings: str, arms: str = "") -> RunDirectory:
        """A new run or comparison in a new or empty directory.

        Args:
            path: of the directory.
            settings: the content of its config.yaml.
            arms: of a comparison, the content of its comparison.yaml.

        Raises:
            InputError: something is there already; nothing of it is touched.
            StorageError: it cannot be written.
        """
        cls.check_free(path)
        directory = cls(path)
        try:
            make_root(path)
        except OSError as error:
            if error.errno in FULL:
                raise storage_error(path, error) from error
            raise InputError(
                OUT, str(path), f"a directory that can be written; {error.strerror}", "Choose another."
            ) from error
        directory.lock(OUT)
        try:
            # Another run may have begun, and ended, between the first look and the lock.
            cls.check_free(path)
            for name in (CONFIG, COMPARISON):
                # Of a beginning that was killed: no two of its files may come from different settings.
                with suppress(FileNotFoundError):
                    (path / name).unlink()
            if arms:
                directory.write(COMPARISON, seal_yaml(arms))
            # Last: where it is, everything that a beginning writes is there.
            directory.write(CONFIG, seal_yaml(settings))
        except BaseException:
            directory.close()
            raise
        return directory

    @staticmethod
    def check_free(path: Path) -> None:
        """Makes sure that a new run may write here: nothing is there but what a killed beginning left.

        Raises:
            InputError: something is there already, or it cannot be looked into.
        """
        try:
            if not os.path.lexists(path):
                return
            held = "" if path.is_dir() else "a file"
            if not held and not _only_begun(path):
                held = "another run" if (path / CONFIG).exists() else "other files"
        except OSError as error:
            raise InputError(OUT, str(path), f"a new or empty directory; {error.strerror}") from error
        if held:
            raise InputError(
                OUT,
                str(path),
                f"a new or empty directory; this is {held}"
                if held == "a file"
                else f"a new or empty directory; this one holds {held}",
                f"Choose another, or go on with that run by {RESUME}."
                if held == "another run"
                else "Choose another.",
            )

    @classmethod
    def open(cls, path: Path, field: str = RESUMED) -> tuple[RunDirectory, str]:
        """A run that was begun before, and the content of its config.yaml.

        Args:
            path: of the directory.
            field: what names it, for the message.

        Raises:
            InputError: there is none, or its settings are not as they were written.
        """
        if not os.path.lexists(path / CONFIG):
            raise InputError(field, str(path), "a directory with the config.yaml of an earlier run")
        if os.path.lexists(path / COMPARISON):
            fix = (
                f"Use {either('compare', 'fedtlu compare')}."
                if field == RESUMED
                else "Name one of the runs in it."
            )
            raise InputError(field, str(path), "the directory of a run; this is a comparison's", fix)
        return cls(path), read_sealed_yaml(path / CONFIG, "the settings of this run")

    def lock(self, field: str = RESUMED) -> None:
        """Keeps other runs, of this process too, from writing here until `close`.

        Args:
            field: what names the directory, for the message.

        Raises:
            InputError: another run writes here already.
            StorageError: the directory cannot be written.
        """
        try:
            self._lock = DirectoryLock(self.path / LOCK)
        except BlockingIOError:
            raise InputError(
                field,
                str(self.path),
                f"{'a run that has stopped' if field == RESUMED else 'a directory of its own'}; another "
                f"run, of this process or another, is writing to this directory",
                "Wait for it to end, or stop it.",
            ) from None
        except OSError as error:
            raise storage_error(self.path / LOCK, error) from error

    def close(self) -> None:
        """Gives the lock up, if there is one."""
        if self._lock is not None:
            self._lock.release()

    def append(self, log: str, row: dict[str, Any]) -> None:
        """Adds one line to a log and hands it to the operating system.

        Raises:
            StorageError: it cannot be written.
        """
        target = self.path / log
        line = timing_line(finite(row)) if log == TIMINGS else dump_json(row).encode() + b"\n"
        try:
            append_to_file(target, line)
        except OSError as error:
            raise storage_error(target, error) from error
        self._digests[log].add(line)

    def digests(self, round_index: int, logs: Sequence[str] = RESULTS) -> dict[str, str]:
        """The SHA-256 of the logs' first lines as they were written: as many lines as rounds."""
        return {log: self._digests[log].after(round_index) for log in logs}

    def rows(self, log: str) -> list[dict[str, Any]]:
        """The complete lines of one of `RESULTS`; one that a kill cut short is left out, and what follows it.

        Raises:
            InputError: the log cannot be read.
        """
        return read_rows(self.path / log)

    def timings(self, rounds: int) -> list[dict[str, Any]]:
        """The readings of the first rounds; see `read_timings`."""
        return read_timings(self.path / TIMINGS, rounds)

    def rewind(self, round_index: int) -> None:
        """Drops the lines of later rounds than the one that a run resumes from.

        Raises:
            InputError: lines of earlier rounds are missing; nothing was changed.
            StorageError: they cannot be written.
        """
        # Without a round nothing has to be read, which may not be possible.
        held = {log: read_lines(self.path / log) if round_index else [] for log in RESULTS}
        for log, lines in held.items():
            if len(lines) < round_index:
                raise InputError(
                    str(self.path / log),
                    f"whole lines for {len(lines)} rounds",
                    f"one for each of the {round_index} rounds of the checkpoint",
                    "Start the run anew in another directory: the same settings give the same bits.",
                )
        if any(len(lines) > round_index for lines in held.values()) or not round_index:
            self._no_longer_finished()
        held[TIMINGS] = [timing_line(row) for row in self.timings(round_index)]
        for log, lines in held.items():
            kept = lines[:round_index]
            self.write_bytes(log, b"".join(kept))
            self._digests[log] = LogDigests(kept)

    def change_settings(self, settings: str) -> None:
        """Writes other settings, such as a longer run's: the run is no longer finished.

        Args:
            settings: the content of its config.yaml from now on.

        Raises:
            StorageError: the directory cannot be written.
        """
        self._no_longer_finished()
        self.write(CONFIG, seal_yaml(settings))

    def sync(self) -> None:
        """Waits until the logs are on the disk, so that a checkpoint never knows more than they do.

        Raises:
            StorageError: they cannot be written.
        """
        target = self.path
        try:
            for log in LOGS:
                target = self.path / log
                sync_file(target)
            sync_folder(self.path)
        except OSError as error:
            raise storage_error(target, error) from error

    def finish(self, summary: Mapping[str, Any], rounds: int) -> None:
        """Writes the summary of a run that is done, and the digests of what will not change any more.

        Raises:
            StorageError: they cannot be written.
        """
        text = dump_json(summary, indent=1) + "\n"
        sums = {**self.digests(rounds, LOGS), SUMMARY: hashlib.sha256(text.encode()).hexdigest()}
        # The digests first: where there is a summary, there are digests.
        self.write(SUMS, "".join(f"{digest}  {name}\n" for name, digest in sums.items()))
        self.write(SUMMARY, text)

    def write(self, name: str, text: str) -> None:
        """Writes a whole file under a temporary name and renames it.

        Raises:
            StorageError: it cannot be written; an earlier file of that name is intact.
        """
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, data: bytes) -> None:
        """Writes a whole file, in a folder of the directory perhaps; raises as `write` does."""
        try:
            write_file(self.path, name, data)
        except OSError as error:
            raise storage_error(self.path / name, error) from error

    def _no_longer_finished(self) -> None:
        try:
            for name in (SUMMARY, SUMS):
                with suppress(FileNotFoundError):
                    (self.path / name).unlink()
        except OSError as error:
            raise storage_error(self.path / name, error) from error


def _only_begun(path: Path) -> bool:
    """Whether a directory holds nothing, or settings as we write them and nothing that came of them."""
    names = {item.name for item in path.iterdir()}
    return names <= BEGINNING and all(is_sealed_yaml(path / name) for name in names & {CONFIG, COMPARISON})
