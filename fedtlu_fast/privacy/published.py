"""What a private federation may publish of its logs; everything else is for the simulation only.

The noisy change of every round is public, and so is what follows from it and from the samples of the server:
scores, choices, the global test. Who took part, losses of clients, their tests and counts of them are not:
they have no noise, and nothing accounts for them. The lists name what is public, so that a figure that is new
counts as not public.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

EPSILON = "epsilon"
"""The entry of rows and summaries with the epsilon of all rounds so far."""
METRICS = (
    "round",
    "diverged",
    "selected",
    "updated_share",
    "warmup",
    "nonfinite_blocks",
    "bytes_published",
    EPSILON,
)
SELECTION = ("round", "warmup", "selected", "block_scores", "layers")
SUMMARY = (
    "task",
    "headline",
    "figures",
    "selector",
    "metric",
    "client_selector",
    "client_budget",
    "selection_share",
    "client_selection_share",
    "open_blocks",
    "personal_blocks",
    "seed",
    "rounds",
    "stopped",
    "best",
    "warmup_rounds",
    "targeted_rounds",
    "clients",
    "cohort",
    "parameters",
    "groups",
    "trained_clients",
    "diverged_round",
    "updated_share",
    "bytes_published",
    "params_sha256",
    "run_name",
    "environment",
    EPSILON,
)
TESTS = ("test_", "start_test_")
"""How the names of figures of the global test begin, whose samples are the server's."""


def privacy_facts(
    metrics: Sequence[Mapping[str, Any]], selection: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns what the summary says of privacy; nothing for a run without an account.

    Args:
        metrics: rows of metrics.jsonl.
        selection: rows of selection.jsonl.
        summary: the rest of the summary.
    """
    if not metrics or EPSILON not in metrics[-1]:
        return {}
    return {
        EPSILON: metrics[-1][EPSILON],
        "simulation_only": {
            "metrics.jsonl": _others(_keys(metrics), METRICS),
            "selection.jsonl": _others(_keys(selection), SELECTION),
            "summary.json": _others(summary, SUMMARY),
        },
    }


def _keys(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _others(keys: Iterable[str], public: Sequence[str]) -> list[str]:
    return [key for key in keys if key not in public and not key.startswith(TESTS)]
