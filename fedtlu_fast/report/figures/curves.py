"""Curves of a figure over rounds, as pictures of runs and of comparisons draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fedtlu_fast.report.figures.style import FAINT, INK
from fedtlu_fast.tasks.metrics import Figure as Quality

Rows = Sequence[dict[str, Any]]


def draw_curve(axes: Axes, name: str, runs: Sequence[Rows], quality: Quality, shade: str) -> None:
    """Draws a figure over rounds: the mean over runs, and a band where there are several.

    Args:
        axes: the axes to draw on.
        name: the name of the curve in the legend.
        runs: the rows of metrics.jsonl of each run.
        quality: the figure to draw.
        shade: the curve's colour.
    """
    rounds, values = tested_values(runs, quality)
    values = quality.scale * values
    draw_band(axes, name, rounds, values, shade)


def draw_level(axes: Axes, name: str, values: Sequence[float | None], quality: Quality, shade: str) -> None:
    """Draws a dotted line at the mean over the runs of an arm without rounds."""
    found = [quality.scale * value for value in values if value is not None]
    if found:
        axes.axhline(sum(found) / len(found), color=shade, linewidth=1.2, linestyle=":", label=name)


def tested_values(runs: Sequence[Rows], quality: Quality) -> tuple[list[int], NDArray[np.float64]]:
    """Returns the rounds with a test, and [runs, rounds] values: NaN where a run has no finite number."""
    tested = [{row["round"]: row[quality.column] for row in run} for run in runs]
    rounds = sorted({index for run in tested for index, value in run.items() if value is not None})
    values = [[run.get(index) for index in rounds] for run in tested]
    return rounds, np.array(values, dtype=np.float64)  # None becomes NaN


def draw_band(axes: Axes, name: str, rounds: list[int], values: NDArray[np.float64], shade: str) -> None:
    """Draws the mean over runs, and a band from the smallest to the largest if there are several."""
    marker = "o" if len(rounds) < 10 else None
    axes.plot(
        rounds, values.mean(axis=0), color=shade, linewidth=1.8, label=name, marker=marker, markersize=4
    )
    if len(values) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(rounds, low, high, color=shade, alpha=0.15, linewidth=0)


def finish_curves(
    axes: Axes, warmup: int, rounds: int, values: Sequence[float | None], quality: Quality
) -> None:
    """Sets limits, marks and labels; the limits show all of `values`."""
    shown = [quality.scale * value for value in values if value is not None]
    if shown:
        low, high = min(shown), max(shown)
        # The fall during warm-up would flatten everything that the picture is about.
        axes.set_ylim(low - 0.05 * (high - low) - 1e-9, high + 0.15 * (high - low) + 1e-9)
    if 0 < warmup < rounds:
        axes.axvline(warmup + 0.5, color=INK, linewidth=0.8, linestyle=":")
        axes.annotate(
            "targeting starts",
            (warmup + 0.5, 0),
            xycoords=("data", "axes fraction"),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )
    axes.set_ylabel(f"test {quality.label}", fontsize=9)
    dress(axes)


def dress(axes: Axes, legend: bool = True) -> None:
    """Gives axes of rounds their label, grid and legend."""
    axes.set_xlabel("round", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.tick_params(labelsize=8)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        # With a frame, its names stay legible where curves pass under it.
        axes.legend(framealpha=0.85, edgecolor="none", fontsize=9, loc="upper right")
