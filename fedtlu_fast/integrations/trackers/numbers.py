"""The numbers of a round and of a summary, under the names by which trackers show them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any


def of_round(row: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of one round.

    Numbers of metrics.jsonl keep their names. A list or mapping, such as ``refused``, counts by its length.
    Each block has ``score/BLOCK`` and ``selected/BLOCK`` (1 when the server applied it, else 0). Where
    clients choose blocks, ``trained/BLOCK`` is the share of the cohort that trained the block.

    Args:
        row: a row of metrics.jsonl.
        choice: the row of selection.jsonl of the same round.
    """
    found = {
        name: float(len(value) if isinstance(value, list | tuple | Mapping) else value)
        for name, value in row.items()
        if name != "round" and isinstance(value, bool | int | float | list | tuple | Mapping)
    }
    blocks = list(choice["block_scores"])
    found |= {
        f"score/{block}": float(score) for block, score in choice["block_scores"].items() if score is not None
    }
    found |= {f"selected/{block}": float(block in choice["selected"]) for block in blocks}
    if trained := choice.get("client_blocks"):
        for index, block in enumerate(blocks):
            found[f"trained/{block}"] = sum(index in own for own in trained) / len(trained)
    return found


def of_summary(summary: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Returns the finite numbers of a summary; nested ones have names such as ``best/round``."""
    found: dict[str, float] = {}
    for name, value in summary.items():
        if isinstance(value, Mapping):
            found |= of_summary(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
            found[f"{prefix}{name}"] = float(value)
    return found


def plain(value: Any) -> str | int | float | bool:
    """Returns the value of a setting as trackers take it: lists and None as JSON."""
    return value if isinstance(value, str | int | float | bool) else json.dumps(value)
