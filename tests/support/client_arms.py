"""Arms of a comparison in which clients choose, in the form in which reports read them."""

from collections.abc import Sequence
from typing import Any

from fedtlu_fast.runs.results import ArmResult

BLOCKS = ("embed", "h.0", "h.1", "h.2", "head")
OPEN = ("h.0", "h.1", "h.2")

Choice = Sequence[Sequence[int]]
"""Blocks of each client of a cohort."""


def arm(
    name: str, seed: int, choices: Sequence[Choice], *, accuracy: float | None = 0.5, **over: Any
) -> ArmResult:
    """Makes an arm with one round of warm-up and a round for each choice; accuracy rises by 0.1 in each."""
    metrics: list[dict[str, Any]] = []
    selection: list[dict[str, Any]] = []
    for index in range(1, len(choices) + 2):
        value = None if accuracy is None else accuracy + 0.1 * (index - 1 - len(choices))
        row = {"round": index, "warmup": index == 1, "selected": list(BLOCKS)}
        metrics.append({**row, "test_accuracy": value, "test_perplexity": 20.0 - index, "seconds": 1.0})
        row |= {"cohort": [0, 1], "block_scores": dict.fromkeys(BLOCKS, 0.1)}
        if index > 1:
            blocks = [list(own) for own in choices[index - 2]]
            row |= {"cohort": list(range(len(blocks))), "client_blocks": blocks, "probed": []}
        selection.append(row)
    summary = {
        "selector": name,
        "seed": seed,
        "warmup_rounds": 1,
        "groups": {"h.*": list(OPEN)},
        "open_blocks": list(OPEN),
        "test_accuracy": accuracy,
        "local_accuracy": accuracy,
        "test_macro_f1": None,
        "test_perplexity": metrics[-1]["test_perplexity"],
        "local_perplexity": 21.0,
        "trained_local_perplexity": None,
        "updated_share": 0.5,
        "bytes_published": 10_000_000,
        "bytes_up": 20_000_000,
        "seconds": 4.0,
        **over,
    }
    return ArmResult(name, seed, summary, metrics, selection)


def reference(name: str, seed: int, accuracy: float) -> ArmResult:
    """A row without rounds."""
    return ArmResult(name, seed, {"test_accuracy": accuracy, "local_accuracy": accuracy}, [], [])
