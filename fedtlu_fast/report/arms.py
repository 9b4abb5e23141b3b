"""What the names of arms mean: selector, budget and baseline.

An arm is called ``selector``, ``selector@budget`` or ``selector@budget+setting=value``: ``full``,
``gradnorm@1..4``, ``full@all``, ``strategic@2+lam=0.1``; see `experiments.variants`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from fedtlu_fast.runs.results import NO_BUDGET, ArmResult

BASELINE = "random"
"""The selector that gains are measured against."""
RECORDING = ("evaluation.benefit=true", "evaluation.benefit=false")
"""Settings in names of arms that change neither the model nor the choice nor the test."""


def budget_of(name: str) -> str | None:
    """Returns the budget of an arm: ``2`` of ``strategic@2+lam=0.1``; None if it has none."""
    _, mark, budget = name.partition("+")[0].partition("@")
    return budget if mark and budget != NO_BUDGET else None


def selector_of(name: str) -> str:
    """Returns an arm's name without its budget: ``strategic+lam=0.1`` for ``strategic@2+lam=0.1``."""
    head, mark, settings = name.partition("+")  # an @ in a setting is part of its value
    return head.partition("@")[0] + mark + settings


def is_random(name: str) -> bool:
    """Whether an arm chooses at random, with no setting that changes its model or its choice."""
    return selector_of(_unrecorded(name)) == BASELINE


def baseline_of(name: str, names: Collection[str]) -> str:
    """Returns the name of the arm that chooses at random within the same budget.

    Args:
        name: of the arm.
        names: of all arms. If ``random`` is not among them, an arm does that only records more, such as
            ``random+evaluation.benefit=true``; without any the name is that of the plain arm.
    """
    budget = budget_of(name)
    plain = BASELINE if budget is None else f"{BASELINE}@{budget}"
    if plain in names:
        return plain
    return next((other for other in names if _unrecorded(other) == plain), plain)


def _unrecorded(name: str) -> str:
    """Returns an arm's name without the settings that only record more."""
    head, *settings = name.split("+")
    return "+".join([head, *(setting for setting in settings if setting not in RECORDING)])


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
