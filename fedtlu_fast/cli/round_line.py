"""What happened in a round, in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_SHOWN = 4
"""The largest number of chosen blocks that the line names."""


def status(row: dict[str, Any], choosable: Mapping[str, str]) -> str:
    """Returns the results of a round in one line; blocks that are always updated are not named.

    Args:
        row: the round's row of metrics.jsonl.
        choosable: short names of the blocks in groups, from which a selector chooses.
    """
    tested = f"perplexity {row['test_perplexity']:.1f}" if row["test_perplexity"] is not None else ""
    names = [choosable[name] for name in row["selected"] if name in choosable]
    more = [f"+{len(names) - MOST_SHOWN}"] if len(names) > MOST_SHOWN else []
    chosen = "warm-up: all" if row["warmup"] and row["selected"] else " ".join([*names[:MOST_SHOWN], *more])
    refused = f"refused {len(row['refused'])}" if row["refused"] else ""
    dropped = f"dropped {len(row['dropped'])}" if row["dropped"] else ""
    parts = (
        f"loss {row['train_loss']:.3f}" if row["train_loss"] is not None else "",
        tested,
        f"accuracy {100 * row['test_accuracy']:.1f}%" if row.get("test_accuracy") is not None else "",
        *_own_figures(row),
        f"epsilon {row['epsilon']:.2f}" if row.get("epsilon") is not None else "",
        chosen,
        refused,
        dropped,
        f"not finite, left out: {len(row['nonfinite_blocks'])} blocks" if row["nonfinite_blocks"] else "",
        "too few clients for the rule: nothing changed" if row["kept_clients"] == [] else "",
    )
    return "  ".join(part for part in parts if part)


def _own_figures(row: dict[str, Any]) -> list[str]:
    """Returns the user's own metrics in the global test."""
    ours = ("test_loss", "test_perplexity", "test_accuracy")
    own = {key: value for key, value in row.items() if key.startswith("test_") and key not in ours}
    return [f"{key.removeprefix('test_')} {value:.4g}" for key, value in own.items() if value is not None]
