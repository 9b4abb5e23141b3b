"""The figure by which a run's tables and pictures compare it, as its summary names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.tasks.metrics import ACCURACY, PERPLEXITY, Figure

STANDARD = ("loss", PERPLEXITY.name, ACCURACY.name)
"""Figures of the tasks of this package, whose columns are in `columns.COLUMNS`."""


def headline_of(summary: Mapping[str, Any]) -> Figure:
    """Returns the headline of a run.

    Runs of earlier versions do not name a headline; theirs is the accuracy if they have one, and else the
    perplexity.
    """
    name = summary.get("headline")
    if name is None:
        return PERPLEXITY if summary.get(ACCURACY.column) is None else ACCURACY
    return Figure(name, **summary["figures"][name])


def headline_of_arms(results: Sequence[ArmResult]) -> Figure:
    """Returns the headline of several runs of one task.

    Of runs of earlier versions it is the accuracy if any of them has one.
    """
    found = [headline_of(result.summary) for result in results]
    return next((figure for figure in found if figure != PERPLEXITY), PERPLEXITY)


def own_metrics(results: Sequence[ArmResult]) -> list[str]:
    """Returns the names of the task's own metrics in summaries, of the global and of the clients' tests.

    Figures in `STANDARD` are left out, except the loss if it is the headline.
    """
    named = {name: None for result in results for name in result.summary.get("figures", {})}
    own = [name for name in named if name not in STANDARD]
    loss = headline_of_arms(results).name == "loss"
    return [f"{test}_{name}" for name in [*own, *(["loss"] if loss else [])] for test in ("test", "local")]
