"""Curves of many arms over rounds: a panel for each budget, which also shows the arms without a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fedtlu_fast.report.aggregate.curves import Curve
from fedtlu_fast.report.arms import budget_of, budgets_of, selector_of
from fedtlu_fast.report.figures.sentence import write_above
from fedtlu_fast.report.figures.style import FAINT, INK, Style, styles

MOST_COLUMNS = 3
LONGEST_NOTE = 56
"""The number of characters that fit in the width of a panel."""


def curves_by_budget(
    curves: Mapping[str, Curve],
    label: str,
    first: int,
    *,
    marked: int = 0,
    bands: bool = False,
    limits: tuple[float, float] | None = None,
    sentence: str = "",
) -> Figure:
    """Draws a panel for each budget, all with the same limits; one panel if no arm has a budget.

    Lines are means over runs, and levels are horizontal lines. Lines that coincide are named above the panel.

    Args:
        curves: the curve of each arm, by its name; one or more.
        label: the label of the vertical axis.
        first: the first round that is shown. Earlier rounds do not influence the limits either.
        marked: the last round of the warm-up, which a dotted line marks; 0 for no mark.
        bands: whether a band shows the range from the smallest to the largest run.
        limits: the limits of the vertical axis; None for limits that fit the curves.
        sentence: above the whole picture; empty for none.
    """
    names = list(curves)
    budgets: list[str | None] = [*budgets_of(names)] or [None]
    lines = -(-len(budgets) // MOST_COLUMNS)
    columns = -(-len(budgets) // lines)
    figure = Figure(figsize=(2.2 + max(5.0, 3.3 * columns), 0.5 + 2.7 * lines), dpi=130, layout="constrained")
    write_above(figure, sentence)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    looks = styles(names)
    last = max((curve.rounds[-1] for curve in curves.values() if len(curve.rounds)), default=first)
    for axes, budget in zip(panels, budgets, strict=False):
        shown = [name for name in names if budget_of(name) in (None, budget)]
        for name in sorted(shown, key=lambda name: budget_of(name) is not None):  # grey ones lie below
            _draw(axes, curves[name], looks[name], bands)
        title = "" if budget is None else f"budget {budget}"
        _head(axes, title, coincident({name: curves[name] for name in shown}, first))
        if marked:
            axes.axvline(marked + 0.5, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xlim(first - 0.5, last + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        axes.tick_params(labelsize=8, labelbottom=True)
        axes.grid(color=FAINT, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(budgets) :]:
        axes.set_axis_off()
    panels[0].set_ylim(limits or _needed(curves, first))
    figure.supylabel(label, fontsize=9)
    figure.supxlabel("round; from the dotted line on clients choose" if marked else "round", fontsize=9)
    legend(figure, looks)
    return figure


def legend(figure: Figure, looks: Mapping[str, Style], marks: Mapping[str, Line2D] | None = None) -> None:
    """Adds a legend at the right of the figure: a line for each selector, grey ones last, then `marks`."""
    told = {selector_of(name): style for name, style in looks.items()}
    grey = {selector_of(name) for name in looks if budget_of(name) is None}
    order = sorted(told, key=lambda name: name in grey)
    handles = [
        Line2D([], [], color=told[name].colour, linestyle=told[name].line, linewidth=1.8, label=name)
        for name in order
    ]
    for name, mark in (marks or {}).items():
        mark.set_label(name)
        handles.append(mark)
    figure.legend(handles=handles, frameon=False, fontsize=8, loc="outside right upper", handlelength=2.6)


def _draw(axes: Axes, curve: Curve, style: Style, bands: bool) -> None:
    mean = curve.mean()
    if not len(curve.rounds):
        axes.axhline(float(mean[0]), color=style.colour, linestyle=style.line, linewidth=1.6)
        return
    marker = "o" if len(curve.rounds) < 10 else None
    axes.plot(
        curve.rounds,
        mean,
        color=style.colour,
        linestyle=style.line,
        linewidth=1.6,
        marker=marker,
        markersize=3.5,
    )
    if bands and len(curve.values) > 1:
        low, high = curve.values.min(axis=0), curve.values.max(axis=0)
        axes.fill_between(curve.rounds, low, high, color=style.colour, alpha=0.12, linewidth=0)


def coincident(curves: Mapping[str, Curve], first: int) -> list[list[str]]:
    """Returns the sets of selectors whose lines coincide, so that only the line drawn last can be seen."""
    alike: dict[bytes, list[str]] = {}
    for name, curve in curves.items():
        if len(curve.rounds):
            seen = np.array(curve.rounds) >= first
            alike.setdefault(curve.mean()[seen].tobytes(), []).append(selector_of(name))
    return [names for names in alike.values() if len(names) > 1]


def same_line(names: Sequence[str]) -> str:
    """The note that the lines of these selectors coincide."""
    return fill(f"same line: {', '.join(names)}", LONGEST_NOTE, break_on_hyphens=False)


def _head(axes: Axes, title: str, alike: Sequence[Sequence[str]]) -> None:
    """Sets the title, with the names of coinciding lines below it."""
    notes = [same_line(names) for names in alike]
    text = "\n".join(notes)
    axes.set_title(title, fontsize=9, loc="left", pad=6 + (9 * (1 + text.count("\n")) if notes else 0))
    if notes:
        axes.annotate(
            text,
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 4),
            textcoords="offset points",
            va="bottom",
            fontsize=7,
            linespacing=1.1,
            color=INK,
        )


def _needed(curves: Mapping[str, Curve], first: int) -> tuple[float, float]:
    """Returns limits that show the levels, and all runs from the first round shown."""
    seen = [
        curve.values[:, np.array(curve.rounds) >= first] if len(curve.rounds) else curve.values
        for curve in curves.values()
    ]
    values = np.concatenate([found.ravel() for found in seen])
    values = values[~np.isnan(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    room = 0.05 * (high - low) + 1e-9
    return low - room, high + room
