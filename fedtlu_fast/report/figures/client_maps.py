"""Maps of the blocks that clients trained in every round, one for each arm whose clients choose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedtlu_fast.report.aggregate.client_choices import mean_shares
from fedtlu_fast.report.aggregate.curves import Choices
from fedtlu_fast.report.arms import budget_of, budgets_of, selector_of
from fedtlu_fast.report.figures.style import INK
from fedtlu_fast.shown import short_names

MOST_COLUMNS = 6
FEWEST_BUDGETS, FEWEST_FILLED = 3, 0.8
"""A grid of selectors by budgets needs so many budgets, and an arm in this share of its cells."""
MOST_LABELS = 14
"""A map with more blocks than this names only some of them."""
WIDTH = 11.0
SIDE = 1.6
"""Inches: the width of all maps together, and the width for the names of blocks and the colour bar."""


def maps_figure(choices: Choices) -> Figure:
    """Draws a map of blocks by rounds for each arm, input at the bottom: mean shares of the cohort.

    Args:
        choices: the choices of one arm or more.
    """
    places = grid(list(choices))
    columns = 1 + max(column for _, column in places.values())
    lines = 1 + max(row for row, _ in places.values())
    blocks = list(dict.fromkeys(name for runs in choices.values() for run in runs for name in run.blocks))
    each = float(np.clip(0.13 * len(blocks), 0.7, 2.2))
    width = SIDE + max(4.5, WIDTH * min(1.0, columns / 4))
    figure = Figure(figsize=(width, 0.6 + (each + 0.42) * lines), dpi=130, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    tint = LinearSegmentedColormap.from_list("share", ["#F7F7F7", "#6BAED6", "#08306B"])
    first = min(run.rounds[0] for runs in choices.values() for run in runs)
    last = max(run.rounds[-1] for runs in choices.values() for run in runs)
    extent = (first - 0.5, last + 0.5, -0.5, len(blocks) - 0.5)
    lowest = {column: max(r for r, c in places.values() if c == column) for column in range(columns)}
    for axes in panels.flat:
        axes.set_axis_off()
    for name, (row, column) in places.items():
        axes = panels[row, column]
        axes.set_axis_on()
        shares = mean_shares(choices[name], blocks, range(first, last + 1))
        image = axes.imshow(
            shares.T,
            aspect="auto",
            origin="lower",
            cmap=tint,
            vmin=0,
            vmax=1,
            interpolation="nearest",
            extent=extent,
        )
        sent = " (sent)" if any(run.sent_less for run in choices[name]) else ""
        axes.set_title(name + sent, fontsize=8, loc="left", pad=3)
        _label(axes, blocks)
        axes.tick_params(labelleft=column == 0, labelbottom=row == lowest[column])
    bar = figure.colorbar(image, ax=panels, fraction=0.02, aspect=25, pad=0.01, ticks=(0, 0.5, 1))
    bar.ax.set_yticklabels(["none", "half", "all"], fontsize=8)
    bar.outline.set(edgecolor=INK, linewidth=0.6)
    figure.supxlabel("round", fontsize=9)
    return figure


def grid(names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Returns row and column of each arm's map, in at most `MOST_COLUMNS` columns.

    There is a row for each selector and a column for each budget if most of these pairs have an arm; arms
    without a budget follow. Otherwise the maps stand one after another.
    """
    budgets = budgets_of(names)
    budgeted = [name for name in names if budget_of(name) is not None]
    kinds = list(dict.fromkeys(map(selector_of, budgeted)))
    if not FEWEST_BUDGETS <= len(budgets) <= MOST_COLUMNS or len(budgeted) < FEWEST_FILLED * len(
        budgets
    ) * len(kinds):
        columns = min(MOST_COLUMNS, len(names))
        columns = -(-len(names) // -(-len(names) // columns))  # no fuller rows than the last needs
        return {name: divmod(place, columns) for place, name in enumerate(names)}
    found = {
        name: (kinds.index(selector_of(name)), budgets.index(budget_of(name) or "")) for name in budgeted
    }
    others = [name for name in names if name not in found]
    return found | {
        name: (len(kinds) + place // len(budgets), place % len(budgets)) for place, name in enumerate(others)
    }


def _label(axes: Axes, blocks: Sequence[str]) -> None:
    step = -(-len(blocks) // MOST_LABELS)
    axes.set_yticks(range(0, len(blocks), step), short_names(blocks)[::step])
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
    axes.tick_params(labelsize=7, length=2, color=INK)
    for side in axes.spines.values():
        side.set(edgecolor=INK, linewidth=0.6)
