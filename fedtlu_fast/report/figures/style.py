"""How pictures look: colours and lines that stand for selectors and arms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedtlu_fast.report.arms import BASELINE, budget_of, budgets_of, selector_of

# Okabe and Ito's palette, whose colours differ for colour-blind readers too.
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
"""The largest number of blocks for which a map names each block."""
PALETTE = ("#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's colours without yellow, which is hard to see on white, and blue, the baseline's colour."""
BASELINE_COLOUR, GREY = "#0072B2", "#777777"
DASHES = ("-", "--", "-.", ":")
GREY_DASHES = ("--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 4)))

ON_DARK = {
    "#000000": "#F2F2F2",
    "#333333": "#CCCCCC",
    "#555555": "#B4B4B4",
    "#777777": "#A3A3A3",
    "#0072B2": "#3B8FCE",
    "#8C6D31": "#BF9B4F",
}
"""Colours that are too dark for a dark page, and what stands for them there."""
SVG_DASHES = {"-": "", "--": "6 3", "-.": "7 3 1.5 3", ":": "1.5 3"}
"""Dashes by matplotlib's names, in pixels."""

LineStyle = str | tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class Style:
    """The look of an arm's lines."""

    colour: str
    line: LineStyle


def colours(selectors: Sequence[str]) -> dict[str, str]:
    """Returns a colour for each selector of a picture: that of `COLOURS`, or else one that is still free."""
    taken = {COLOURS[name] for name in selectors if name in COLOURS}
    free = [shade for shade in (*OTHERS, *COLOURS.values()) if shade not in taken]
    others = [name for name in selectors if name not in COLOURS]
    given = {name: free[place % len(free)] for place, name in enumerate(others)}
    return {name: COLOURS.get(name) or given[name] for name in selectors}


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Returns a style for each arm; arms of one selector with different budgets have the same style.

    Where some arms have budgets, arms without a budget are grey.
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


def on_dark(colour: str) -> str:
    """Returns the colour that stands for `colour` on a dark page; colours that are easy to see there stay."""
    return ON_DARK.get(colour, colour)


def dash_lengths(line: LineStyle) -> str:
    """Returns the dashes of a line as SVG has them, such as ``6 3``; empty for a solid line."""
    if isinstance(line, str):
        return SVG_DASHES[line]
    return " ".join(map(str, line[1]))
