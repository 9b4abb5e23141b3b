"""timings.jsonl: stopwatch readings, one line a round, each with a digest of itself.

Only tables of seconds follow from them, so damage costs the lines that it hit, and no checkpoint.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedtlu_fast.errors import InputError, listed
from fedtlu_fast.runs.logs import read_lines
from fedtlu_fast.runs.sealed import DamagedError, seal_json, unseal_json

logger = logging.getLogger("fedtlu_fast")


def timing_line(row: Mapping[str, Any]) -> bytes:
    """The line of a round: its number under ``round``, and seconds by stage."""
    return json.dumps(seal_json(row)).encode() + b"\n"


def read_timings(path: Path, rounds: int) -> list[dict[str, Any]]:
    """The readings of the first rounds, as they were written.

    Args:
        path: of the file.
        rounds: how many.

    Returns:
        One row for each round. The row of a round whose line is damaged or missing has nothing but ``round``;
        a warning names such rounds.
    """
    found: dict[int, dict[str, Any]] = {}
    reason = "lines are damaged or missing"
    try:
        lines = read_lines(path) if rounds else []
    except InputError as error:
        lines, reason = [], str(error.value)
    for line in lines:
        with suppress(DamagedError, KeyError, TypeError):
            row = unseal_json(line)
            found[row["round"]] = row
    lost = [str(index) for index in range(1, rounds + 1) if index not in found]
    if lost:
        logger.warning(
            "%s: %s, so that readings are lost of these rounds: %s; tables of seconds leave them out",
            path,
            reason,
            listed(lost),
        )
    return [found.get(index, {"round": index}) for index in range(1, rounds + 1)]
