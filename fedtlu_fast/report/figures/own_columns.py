"""The picture of the columns that a report is asked for: curves where logs have them, else dots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedtlu_fast.report.arms import arm_names, budget_of, budgets_of
from fedtlu_fast.report.columns import Column
from fedtlu_fast.report.figures.curves import dress
from fedtlu_fast.report.figures.style import DASHES, FAINT, Style, colours, styles
from fedtlu_fast.report.own_columns import OwnColumns
from fedtlu_fast.runs.results import ArmResult

OWN = "columns"
"""The name of the picture's file."""
OWN_TITLE = "Columns asked for"
MOST_PANELS = 2
"""Panels in a row."""


def own_figures(results: Sequence[ArmResult], own: OwnColumns) -> dict[str, Callable[[], Figure]]:
    """Returns the function that draws the picture, by the name of its file; nothing if it would be empty.

    The picture of a single run shows only columns over rounds, as one dot says no more than the table.
    """
    shown = [
        column
        for column in own.columns
        if _rounds_of(column, results)
        or (len(results) > 1 and any(own.value(result, column.key) is not None for result in results))
    ]
    return {OWN: lambda: own_figure(results, own, shown)} if shown else {}


def own_figure(results: Sequence[ArmResult], own: OwnColumns, columns: Sequence[Column]) -> Figure:
    """Draws a panel for each column: means over seeds, with the range from the smallest to the largest.

    Args:
        results: the runs of one arm or more, with any seeds.
        own: the numbers of these runs.
        columns: one or more columns of `own`, each with a number in some run.
    """
    names = arm_names(results)
    looks = _looks(names)
    wide = min(MOST_PANELS, len(columns))
    lines = -(-len(columns) // wide)
    height = float(np.clip(0.8 + 0.26 * len(names), 3.0, 9.0))
    figure = Figure(figsize=(5.5 * wide, height * lines), dpi=130, layout="constrained")
    panels = figure.subplots(lines, wide, squeeze=False).ravel()
    for axes, column in zip(panels, columns, strict=False):
        if _rounds_of(column, results):
            _curves(axes, column, results, looks)
        else:
            _dots(axes, column, results, looks, own)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(columns) :]:
        axes.set_axis_off()
    handles: dict[Any, Any] = {}
    for axes in panels:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if len(handles) > 1:
        figure.legend(handles.values(), handles, frameon=False, fontsize=8, loc="outside right upper")
    return figure


def _looks(names: Sequence[str]) -> dict[str, Style]:
    """Returns a colour for each selector, and dashes for each budget if clients have budgets."""
    budgets = budgets_of(names)
    if not budgets:
        return {name: Style(shade, "-") for name, shade in colours(names).items()}
    dashes = {budget: DASHES[place % len(DASHES)] for place, budget in enumerate(budgets)}
    looks = styles(names)
    return {
        name: Style(look.colour, dashes.get(budget_of(name) or "", look.line)) for name, look in looks.items()
    }


def _rounds_of(column: Column, results: Sequence[ArmResult]) -> list[int]:
    """Returns the rounds in which some run logged the column; none if these are fewer than two."""
    if column.figure is not None:
        return []
    found = {row["round"] for run in results for row in run.metrics if row.get(column.key) is not None}
    return sorted(found) if len(found) > 1 else []


def _curves(axes: Axes, column: Column, results: Sequence[ArmResult], looks: dict[str, Style]) -> None:
    rounds = _rounds_of(column, results)
    for name, look in looks.items():
        runs = [
            {row["round"]: row.get(column.key) for row in r.metrics} for r in results if r.selector == name
        ]
        values = column.scale * np.array([[run.get(at) for at in rounds] for run in runs], np.float64)
        known = ~np.isnan(values).all(axis=0)
        if not known.any():
            continue
        at, shown = np.array(rounds)[known], values[:, known]
        axes.plot(at, np.nanmean(shown, axis=0), color=look.colour, linestyle=look.line, label=name)
        if len(shown) > 1:
            low, high = np.nanmin(shown, axis=0), np.nanmax(shown, axis=0)
            axes.fill_between(at, low, high, color=look.colour, alpha=0.15, linewidth=0)
    dress(axes, legend=False)
    axes.set_title(f"{column.label}: round by round", fontsize=9, loc="left")


def _dots(
    axes: Axes, column: Column, results: Sequence[ArmResult], looks: dict[str, Style], own: OwnColumns
) -> None:
    for place, (name, look) in enumerate(looks.items()):
        found = [own.value(run, column.key) for run in results if run.selector == name]
        values = [column.scale * value for value in found if value is not None]
        if values:
            axes.plot([min(values), max(values)], [place, place], color=look.colour, linewidth=1.4)
            axes.plot(sum(values) / len(values), place, "o", color=look.colour, markersize=5)
    axes.set_yticks(range(len(looks)), list(looks))
    axes.set_ylim(len(looks) - 0.5, -0.5)
    axes.set_title(column.label, fontsize=9, loc="left")
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
