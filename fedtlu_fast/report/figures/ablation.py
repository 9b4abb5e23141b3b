"""The picture of a sweep over lambda: quality and agreement of the clients, by metric and budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedtlu_fast.report.figures.style import BASELINE_COLOUR, FAINT, INK, PALETTE
from fedtlu_fast.tasks.metrics import Figure as Quality

COLOURS = (BASELINE_COLOUR, *PALETTE)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GAP = 0.75
"""The distance in decades between the smallest positive lambda and the place of 0."""


def ablation_figure(rows: Sequence[dict[str, Any]], quality: Quality) -> Figure:
    """Draws quality and agreement over lambda (logarithmic, with 0 at the left); a column for each budget.

    Points are means over seeds, bars one standard deviation either way.

    Args:
        rows: see `ablation_rows`; one or more.
        quality: the headline.
    """
    budgets, metrics = (list(dict.fromkeys(row[key] for row in rows)) for key in ("budget", "metric"))
    figure = Figure(figsize=(1.6 + max(5.0, 3.2 * len(budgets)), 5.6), dpi=130, layout="constrained")
    panels = figure.subplots(2, len(budgets), sharex=True, sharey="row", squeeze=False)
    places = _places(sorted({row["lam"] for row in rows}))
    for column, budget in zip(panels.T, budgets, strict=True):
        column[0].set_title(f"budget {budget}", fontsize=9, loc="left")
        for axes, (name, scale) in zip(
            column, ((quality.column, quality.scale), ("agreement", 1)), strict=True
        ):
            for place, metric in enumerate(metrics):
                own = [row for row in rows if (row["metric"], row["budget"]) == (metric, budget)]
                _line(axes, own, name, scale, places, place, metric)
            _dress(axes, places)
    panels[0, 0].set_ylabel(quality.label, fontsize=9)
    panels[1, 0].set_ylabel("agreement", fontsize=9)
    panels[1, 0].set_ylim(-0.02, 1.04)
    figure.supxlabel("lambda, in units of the round's mean gain", fontsize=9)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    for axes in panels[0, 1:]:
        more = zip(*axes.get_legend_handles_labels(), strict=True)
        fresh = [(handle, label) for handle, label in more if label not in labels]
        handles += [handle for handle, _ in fresh]
        labels += [label for _, label in fresh]
    figure.legend(
        handles, labels, frameon=False, fontsize=8, loc="outside right upper", title="gain", title_fontsize=8
    )
    return figure


def _places(lams: Sequence[float]) -> dict[float, float]:
    """Returns the place of each lambda: its decimal logarithm; 0 stands a gap left of the smallest."""
    positive = [lam for lam in lams if lam > 0]
    zero = np.log10(min(positive)) - GAP if positive else 0.0
    return {lam: float(np.log10(lam)) if lam > 0 else float(zero) for lam in lams}


def _line(
    axes: Axes,
    rows: Sequence[dict[str, Any]],
    name: str,
    scale: float,
    places: dict[float, float],
    place: int,
    metric: str,
) -> None:
    told = [row for row in rows if row[name] is not None]
    if not told:
        return
    # A little apart, so that the bars of metrics that agree can be seen.
    at = np.array([places[row["lam"]] for row in told]) + 0.03 * place
    values = scale * np.array([row[name] for row in told])
    bars = scale * np.array([row[f"{name}_std"] or 0.0 for row in told])
    axes.errorbar(
        at,
        values,
        bars,
        color=COLOURS[place % len(COLOURS)],
        marker=MARKERS[place % len(MARKERS)],
        label=metric,
        linewidth=1.4,
        elinewidth=0.9,
        markersize=4,
        capsize=2,
    )


def _dress(axes: Axes, places: dict[float, float]) -> None:
    axes.set_xticks(list(places.values()), [f"{lam:g}" for lam in places])
    if 0 in places and len(places) > 1:
        # Two strokes where the axis is broken, between 0 and the logarithmic part.
        middle = places[0] + GAP / 2
        axes.plot(
            [middle - 0.05, middle + 0.05],
            [0, 0],
            transform=axes.get_xaxis_transform(),
            linestyle="",
            marker=[(-0.4, -1), (0.4, 1)],
            markersize=7,
            color=INK,
            clip_on=False,
        )
    axes.tick_params(labelsize=8)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
