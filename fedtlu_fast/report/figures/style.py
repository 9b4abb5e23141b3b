"""How pictures look: colours and lines that stand for selectors and arms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedtlu_fast.report.arms import BASELINE, budget_of, budgets_of, selector_of

# Okabe and Ito's palette, told apart by colour-blind readers too.
COLOURS = {
    "fedtlu": "#D55E00",
    "random": "#0072B2",
    "last": "#009E73",
    "first": "#CC79A7",
    "full": "#555555",
}
OTHERS = ("#56B4E9", "#E69F00", "#000000", "#8C6D31")
INK, FAINT = "#333333", "#DDDDDD"
MOST_LABELS = 40
"""A map with more blocks than this names only some of them."""
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


def colours(selectors: Sequence[str]) -> dict[str, str]:
    """A colour for each selector of a picture: ours have colours of their own, others get one in turn."""
    taken = {COLOURS[name] for name in selectors if name in COLOURS}
    free = [shade for shade in (*OTHERS, *COLOURS.values()) if shade not in taken]
    others = [name for name in selectors if name not in COLOURS]
    given = {name: free[place % len(free)] for place, name in enumerate(others)}
    return {name: COLOURS.get(name) or given[name] for name in selectors}


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
