"""costs.json: what each round of a run cost, in bytes and floating-point operations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fedtlu_fast.errors import InputError
from fedtlu_fast.runs.directory import COSTS, RunDirectory
from fedtlu_fast.runs.files import read_file
from fedtlu_fast.runs.sealed import DamagedError, seal_json, unseal_json


def write_costs(
    directory: RunDirectory, blocks: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]
) -> None:
    """Writes what a run has measured.

    Args:
        directory: of the run.
        blocks: what each block of the model costs.
        rounds: one row a round.

    Raises:
        StorageError: it cannot be written.
    """
    content = seal_json({"blocks": dict(blocks), "rounds": [dict(row) for row in rounds]})
    directory.write(COSTS, json.dumps(content, indent=1) + "\n")


def read_round_costs(directory: RunDirectory, field: str = "RUN_DIR") -> list[dict[str, Any]]:
    """The rows of costs.json, one a round.

    Args:
        directory: of a finished run.
        field: what names it, for the message.

    Raises:
        InputError: the run has not measured its costs, or the file is not what it wrote.
    """
    try:
        rows: list[dict[str, Any]] = unseal_json(read_file(directory.path / COSTS))["rounds"]
    except FileNotFoundError:
        expected = f"a finished run that has measured its costs ({COSTS})"
        fix = "Runs measure them where clients choose blocks, or with evaluation.flops=always."
        raise InputError(field, str(directory.path), expected, fix) from None
    except OSError as error:
        raise InputError(
            field, str(directory.path / COSTS), f"costs as they were written; {error.strerror}"
        ) from None
    except (DamagedError, KeyError) as error:
        fix = "Resume the run, which measures them anew."
        raise InputError(
            field, str(directory.path / COSTS), f"costs as they were written; {error}", fix
        ) from None
    return rows
