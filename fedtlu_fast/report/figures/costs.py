"""Pictures of quality against cost: the bytes that clients sent and the FLOPs that they computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedtlu_fast.report.aggregate.costs import RunCosts, mean_path
from fedtlu_fast.report.arms import budget_of, budgets_of, selector_of
from fedtlu_fast.report.columns import COLUMNS
from fedtlu_fast.report.figures.arm_curves import legend
from fedtlu_fast.report.figures.style import FAINT, INK, Style, styles
from fedtlu_fast.tasks.metrics import Figure as Quality

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
PANELS = (COLUMNS["bytes_up"], COLUMNS["flops"])
"""The costs on the horizontal axes."""


def costs_figure(arms: Mapping[str, Sequence[RunCosts]], quality: Quality) -> Figure:
    """Draws quality over the bytes sent up, and over forward and backward FLOPs, probes included.

    Each line is the mean over an arm's runs, of the rounds that all of them tested; a dot marks its end.
    There is a row of panels for each budget, which also shows the arms without a budget.

    Args:
        arms: the runs of each arm, by its name.
        quality: the figure of the global test to show.
    """
    names = list(arms)
    budgets: list[str | None] = [*budgets_of(names)] or [None]
    height = 3.8 if len(budgets) == 1 else 0.5 + 2.6 * len(budgets)
    figure = Figure(figsize=(11, height), dpi=130, layout="constrained")
    panels = figure.subplots(len(budgets), len(PANELS), sharex="col", sharey=True, squeeze=False)
    looks, scale = styles(names), quality.scale
    for row, budget in zip(panels, budgets, strict=True):
        shown = [name for name in names if budget_of(name) in (None, budget)]
        for axes, cost in zip(row, PANELS, strict=True):
            for name in sorted(shown, key=lambda name: budget_of(name) is not None):
                path = mean_path(arms[name], quality.column, cost.key)
                _path(axes, looks[name], path, cost.scale, scale)
            _dress(axes)
            axes.tick_params(labelbottom=True)
        if budget is not None:
            row[0].set_title(f"budget {budget}", fontsize=9, loc="left")
    for axes, cost in zip(panels[-1], PANELS, strict=True):
        axes.set_xlabel(f"{cost.title} so far, all clients", fontsize=9)
        axes.set_xlim(left=0)  # only now: it stops the limits from growing with the lines
    figure.supylabel(f"global test {quality.label}", fontsize=9)
    legend(figure, looks)
    return figure


def ends_figure(arms: Mapping[str, Sequence[RunCosts]], quality: Quality) -> Figure:
    """Draws the quality of the last test over the total cost: a line from budget to budget for each selector.

    Points are means over runs, and bars reach from the smallest to the largest run. Every budget has a shape
    of its own. Arms without a budget are hollow, each with a shape of its own.

    Args:
        arms: the runs of each arm, by its name; runs without a test are left out.
        quality: the figure of the global test to show.
    """
    tested = {
        name: [run for run in runs if run.last(quality.column) is not None] for name, runs in arms.items()
    }
    names = [name for name, runs in tested.items() if runs]
    looks, scale, budgets = styles(names), quality.scale, budgets_of(names)
    hollow = [name for name in names if budgets and budget_of(name) is None]
    figure = Figure(figsize=(11, 4.4), dpi=130, layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, cost in zip(panels, PANELS, strict=True):
        for kind in dict.fromkeys(map(selector_of, names)):
            own = [name for name in names if selector_of(name) == kind]
            style, line = looks[own[0]], []
            for name in own:
                totals = [sum(row[cost.key] for row in run.rows()) for run in tested[name]]
                spent = cost.scale * float(np.mean(totals))
                reached = scale * np.array([run.last(quality.column) for run in tested[name]], np.float64)
                mean = float(reached.mean())
                axes.vlines(spent, reached.min(), reached.max(), color=style.colour, linewidth=1)
                axes.add_line(_mark(style, _shape(name, budgets, hollow), name in hollow, (spent, mean)))
                line.append((spent, mean))
            axes.plot(
                *zip(*sorted(line), strict=True), color=style.colour, linestyle=style.line, linewidth=1.2
            )
        axes.set_xlabel(f"{cost.title} in all rounds, all clients", fontsize=9)
        _dress(axes)
        axes.set_xlim(left=0)
    figure.supylabel(f"global test {quality.label}", fontsize=9)
    shapes = {
        f"budget {budget}": _mark(Style(INK, ""), _shape(f"@{budget}", budgets, hollow)) for budget in budgets
    }
    shapes |= {name: _mark(looks[name], _shape(name, budgets, hollow), True) for name in hollow}
    legend(figure, {name: looks[name] for name in names if name not in hollow}, shapes)
    return figure


def _shape(name: str, budgets: Sequence[str], hollow: Sequence[str]) -> str:
    """Returns the shape of an arm's point."""
    budget = budget_of(name)
    place = budgets.index(budget) if budget in budgets else hollow.index(name) if name in hollow else 0
    return MARKERS[place % len(MARKERS)]


def _mark(style: Style, shape: str, hollow: bool = False, at: tuple[float, float] | None = None) -> Line2D:
    """Makes a point of a panel, or of the legend if `at` is None."""
    xs, ys = ([], []) if at is None else ([at[0]], [at[1]])
    fill = "white" if hollow else style.colour
    return Line2D(
        xs, ys, color=style.colour, linestyle="", marker=shape, markersize=5, markerfacecolor=fill, zorder=3
    )


def _dress(axes: Axes) -> None:
    axes.tick_params(labelsize=8)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _path(
    axes: Axes, style: Style, path: Mapping[int, tuple[float, float]], factor: float, scale: float
) -> None:
    """Draws the mean over runs."""
    if not path:
        return
    points = np.array(list(path.values()))
    spent, values = points[:, 0] * factor, points[:, 1] * scale
    axes.plot(spent, values, color=style.colour, linestyle=style.line, linewidth=1.6)
    axes.plot(spent[-1:], values[-1:], "o", color=style.colour, markersize=5)
