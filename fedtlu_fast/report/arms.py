"""The arms of a comparison in which clients choose: names, budgets, and the styles that stand for them.

An arm is called ``selector``, ``selector@budget`` or ``selector@budget+setting=value``: ``full``,
``gradnorm@1..4``, ``full@all``, ``strategic@2+lam=0.1``; see `simulation.variants`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedtlu_fast.experiments.variants import NO_BUDGET
from fedtlu_fast.runs.results import ArmResult

BASELINE = "random"
"""The selector that gains are measured against."""
PALETTE = ("#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's, but for yellow, which white paper swallows, and for blue, which is the baseline's."""
BASELINE_COLOUR, GREY = "#0072B2", "#777777"
DASHES = ("-", "--", "-.", ":")
GREY_DASHES = ("--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 4)))

LineStyle = str | tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class Style:
    """How an arm's lines look."""

    colour: str
    line: LineStyle


def budget_of(name: str) -> str | None:
    """``2`` of ``strategic@2+lam=0.1``; None for an arm without a budget."""
    _, mark, rest = name.partition("@")
    budget = rest.partition("+")[0]
    return budget if mark and budget != NO_BUDGET else None


def selector_of(name: str) -> str:
    """The arm's name without its budget: ``strategic+lam=0.1`` of ``strategic@2+lam=0.1``."""
    selector, _, rest = name.partition("@")
    _, mark, settings = rest.partition("+")
    return selector + mark + settings


def baseline_of(name: str) -> str:
    """The arm of random choices within the same budget."""
    budget = budget_of(name)
    return BASELINE if budget is None else f"{BASELINE}@{budget}"


def budgets_of(names: Iterable[str]) -> list[str]:
    """The budgets that occur, in the order of their arms."""
    return list(dict.fromkeys(budget for name in names if (budget := budget_of(name)) is not None))


def chooses(result: ArmResult) -> bool:
    """Whether the arm's clients were told what to train or to send."""
    return any("client_blocks" in row for row in result.selection)


def is_reference(result: ArmResult) -> bool:
    """Whether the arm has no rounds of its own, but a summary only (``zero_shot``, ``local_only``)."""
    return all(row["warmup"] for row in result.metrics)


def arm_names(results: Iterable[ArmResult]) -> list[str]:
    """Each name once, in order."""
    return list(dict.fromkeys(result.selector for result in results))


def styles(names: Sequence[str]) -> dict[str, Style]:
    """A style for each arm: one for each selector, whatever its budget.

    Beside arms with budgets, those without are grey.
    """
    budgeted = bool(budgets_of(names))
    coloured = [name for name in names if budget_of(name) is not None or not budgeted]
    kinds = [kind for kind in dict.fromkeys(map(selector_of, coloured)) if kind != BASELINE]
    found = {BASELINE: Style(BASELINE_COLOUR, "-")}
    for place, kind in enumerate(kinds):
        dash = DASHES[place // len(PALETTE) % len(DASHES)]
        found[kind] = Style(PALETTE[place % len(PALETTE)], dash)
    greys = [name for name in names if name not in coloured]
    plain = {name: Style(GREY, GREY_DASHES[place % len(GREY_DASHES)]) for place, name in enumerate(greys)}
    return {name: plain.get(name) or found[selector_of(name)] for name in names}
