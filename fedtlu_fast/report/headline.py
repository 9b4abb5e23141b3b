"""The figure by which a run's tables and pictures compare it, as its summary names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.tasks.metrics import ACCURACY, PERPLEXITY, Figure

STANDARD = ("loss", PERPLEXITY.name, ACCURACY.name)
"""Figures that our own tasks have, which have columns of their own."""


def headline_of(summary: Mapping[str, Any]) -> Figure:
    """The headline of a run.

    Runs of earlier versions do not name one: of them it is the accuracy where they have one, and else the
    perplexity.
    """
    name = summary.get("headline")
    if name is None:
        return PERPLEXITY if summary.get(ACCURACY.column) is None else ACCURACY
    return Figure(name, **summary["figures"][name])


def headline_of_arms(results: Sequence[ArmResult]) -> Figure:
    """The headline of several runs of one task; accuracy where any of earlier versions has one."""
    found = [headline_of(result.summary) for result in results]
    return next((figure for figure in found if figure != PERPLEXITY), PERPLEXITY)


def own_metrics(results: Sequence[ArmResult]) -> list[str]:
    """Names in summaries of the figures that are not `STANDARD`, of the global and of the clients' tests."""
    named = {name: None for result in results for name in result.summary.get("figures", {})}
    own = [name for name in named if name not in STANDARD]
    loss = headline_of_arms(results).name == "loss"
    return [f"{test}_{name}" for name in [*own, *(["loss"] if loss else [])] for test in ("test", "local")]
