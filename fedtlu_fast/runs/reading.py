"""Reading the directory of a run, under way or finished, as far as digests vouch for what is there."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from fedtlu_fast.errors import InputError
from fedtlu_fast.runs.checkpoints import whole_checkpoints
from fedtlu_fast.runs.directory import LOGS, METRICS, RESULTS, SUMMARY, SUMS, TIMINGS, RunDirectory
from fedtlu_fast.runs.files import file_sha256, read_file

RESUME = "Resume it, which makes the end of the run anew."
ANEW = "Start it anew in another directory: the same settings give the same bits."


def has_summary(directory: RunDirectory) -> bool:
    """Whether a run says that it is finished; `damage` finds out whether what it left can be trusted."""
    return os.path.lexists(directory.path / SUMMARY)


def damage(directory: RunDirectory) -> str | None:
    """What of a finished run's results is not as it was written; None when all of it is.

    Lines of its timings vouch for themselves (`read_timings`).
    """
    try:
        lines = read_file(directory.path / SUMS).decode().splitlines()
    except FileNotFoundError:
        return f"{SUMS} is missing: removed, or the run was made by an earlier version"
    except (OSError, ValueError) as error:
        return f"{SUMS}: {getattr(error, 'strerror', None) or 'damaged'}"
    found = [re.fullmatch(r"([0-9a-f]{64})  (\S+)", line) for line in lines]
    said = {match[2]: match[1] for match in found if match}
    if len(said) < len(lines) or said.keys() != {*LOGS, SUMMARY}:
        return f"{SUMS} is damaged"
    for name in (*RESULTS, SUMMARY):
        try:
            if file_sha256(directory.path / name) != said[name]:
                return f"{name} was changed after it was written"
        except OSError as error:
            return f"{name}: {error.strerror}"
    return None


def trusted_rows(directory: RunDirectory, field: str = "RUN_DIR") -> dict[str, list[dict[str, Any]]]:
    """Rows of every log: all of a finished run; of another, those up to its latest whole checkpoint.

    Args:
        directory: of the run.
        field: what names it, for the message.

    Raises:
        InputError: the logs are not what the run wrote.
    """
    if has_summary(directory):
        if found := damage(directory):
            fix = RESUME if found.startswith((SUMMARY, SUMS)) else ANEW
            raise InputError(field, str(directory.path), f"a run as it was written; {found}", fix)
        return _rows(directory)
    for _, facts in whole_checkpoints(directory.checkpoints):
        return _rows(directory, facts.round)
    if any(directory.checkpoints.glob("round-*")):
        expected = "a run with a whole checkpoint, and logs as they were written"
        raise InputError(field, str(directory.path), expected, ANEW)
    return {log: [] for log in LOGS}


def _rows(directory: RunDirectory, rounds: int | None = None) -> dict[str, list[dict[str, Any]]]:
    rows = {log: directory.rows(log)[:rounds] for log in RESULTS}
    return {**rows, TIMINGS: directory.timings(len(rows[METRICS]))}


def read_finished(
    directory: RunDirectory, field: str
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Summary and rows of a finished run.

    Raises:
        InputError: the run is not finished, or not as it was written.
    """
    if not has_summary(directory):
        expected = f"a finished run, with its {SUMMARY}"
        raise InputError(field, str(directory.path), expected, "Wait for its end, or resume it.")
    rows = trusted_rows(directory, field)
    return dict(json.loads(read_file(directory.path / SUMMARY))), rows
