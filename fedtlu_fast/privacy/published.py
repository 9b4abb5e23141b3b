"""What a private federation may publish of its logs; everything else is for the simulation only.

The noisy change of every round is public, and so is what follows from it and from the samples of the server:
scores, choices, the global test. Who took part, losses of clients, their tests and counts of them are not:
they have no noise, and nothing accounts for them. The lists name what is public, so that a figure that is new
counts as not public. In a run without noise nothing is public.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
EVERYTHING = "everything"
FILES = {
    "config.yaml": ["seed"],  # from which the noise follows
    "timings.jsonl": [EVERYTHING],  # how long a round takes says how many clients trained
    "costs.json": ["rounds"],
    "checkpoints": ["memory.safetensors", "state.json"],
    "report.html": [EVERYTHING],
    "plots": [EVERYTHING],
    "SHA256SUMS": [EVERYTHING],
}
"""What else a run's directory has that is not public."""


def privacy_facts(
    metrics: Sequence[Mapping[str, Any]],
    selection: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    noise_multiplier: float | None,
    replaced: Collection[str] = (),
) -> dict[str, Any]:
    """Returns what the summary says of privacy; nothing for a run without differential privacy.

    Args:
        metrics: rows of metrics.jsonl.
        selection: rows of selection.jsonl.
        summary: the rest of the summary.
        noise_multiplier: of the run; None without differential privacy.
        replaced: entries of the summary that do not come from the run's model, but from clients' own models.
    """
    if noise_multiplier is None:
        return {}
    noise, hidden = bool(noise_multiplier), [*replaced, *_chosen_by_clients(summary)]
    return {
        EPSILON: metrics[-1][EPSILON] if metrics else 0.0,
        "simulation_only": {
            "metrics.jsonl": _others(_keys(metrics), METRICS, noise),
            "selection.jsonl": _others(_keys(selection), SELECTION, noise),
            "summary.json": [
                key for key in summary if key in hidden or key in _others(summary, SUMMARY, noise)
            ],
            **FILES,
        },
    }


def _chosen_by_clients(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yields the entries that a callback has made by something else than the global test."""
    if not str(summary.get("stopped") or TESTS[0]).startswith(TESTS):
        yield "stopped"
    if not (summary.get("best") or {"metric": TESTS[0]})["metric"].startswith(TESTS):
        yield "best"


def _keys(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _others(keys: Iterable[str], public: Sequence[str], noise: bool) -> list[str]:
    return [key for key in keys if not noise or (key not in public and not key.startswith(TESTS))]
