"""What the names of arms mean: selector, budget and baseline.

An arm is called ``selector``, ``selector@budget`` or ``selector@budget+setting=value``: ``full``,
``gradnorm@1..4``, ``full@all``, ``strategic@2+lam=0.1``; see `experiments.variants`.
"""

from __future__ import annotations

from collections.abc import Iterable

from fedtlu_fast.runs.results import NO_BUDGET, ArmResult

BASELINE = "random"
"""The selector that gains are measured against."""


def budget_of(name: str) -> str | None:
    """Returns the budget of an arm: ``2`` of ``strategic@2+lam=0.1``; None if it has none."""
    _, mark, rest = name.partition("@")
    budget = rest.partition("+")[0]
    return budget if mark and budget != NO_BUDGET else None


def selector_of(name: str) -> str:
    """Returns an arm's name without its budget: ``strategic+lam=0.1`` for ``strategic@2+lam=0.1``."""
    selector, _, rest = name.partition("@")
    _, mark, settings = rest.partition("+")
    return selector + mark + settings


def baseline_of(name: str) -> str:
    """Returns the name of the arm that chooses at random within the same budget."""
    budget = budget_of(name)
    return BASELINE if budget is None else f"{BASELINE}@{budget}"


def budgets_of(names: Iterable[str]) -> list[str]:
    """Returns the budgets that occur, in the order of their arms."""
    return list(dict.fromkeys(budget for name in names if (budget := budget_of(name)) is not None))


def chooses(result: ArmResult) -> bool:
    """Whether blocks were chosen that the arm's clients train or send."""
    return any("client_blocks" in row for row in result.selection)


def is_reference(result: ArmResult) -> bool:
    """Whether the arm has only a summary and no targeted rounds (``zero_shot``, ``local_only``)."""
    return all(row["warmup"] for row in result.metrics)


def arm_names(results: Iterable[ArmResult]) -> list[str]:
    """Returns the name of every arm once, in their order."""
    return list(dict.fromkeys(result.selector for result in results))
