"""The picture of what a result costs: its quality against the bytes and the FLOPs spent so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedtlu_fast.report.costs import RunCosts
from fedtlu_fast.report.plots import FAINT

STYLES = ("-", "--", ":", "-.")
LABELS = {"test_accuracy": ("accuracy, %", 100), "test_perplexity": ("perplexity (lower is better)", 1)}
PANELS = {
    "bytes_up": ("MB sent by clients so far", 1e-6),
    "flops": ("GFLOP computed by clients so far", 1e-9),
}


def costs_figure(arms: Mapping[str, Sequence[RunCosts]], quality: str) -> Figure:
    """Quality over the bytes sent up and over forward and backward FLOPs, probes included.

    Each line is the mean over an arm's runs of the rounds that all of them tested; a dot marks its end.

    Args:
        arms: runs by the arm's name.
        quality: ``test_accuracy`` or ``test_perplexity``.
    """
    figure = Figure(figsize=(10, 3.8), dpi=130, layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (cost, (title, factor)) in zip(panels, PANELS.items(), strict=True):
        for place, (name, runs) in enumerate(arms.items()):
            _line(axes, name, place, [run.path(quality, cost) for run in runs], factor, LABELS[quality][1])
        axes.set_xlabel(title, fontsize=9)
        axes.set_xlim(left=0)
        axes.tick_params(labelsize=8)
        axes.grid(color=FAINT, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(LABELS[quality][0], fontsize=9)
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def _line(
    axes: Axes,
    name: str,
    place: int,
    paths: Sequence[Sequence[tuple[int, float, float]]],
    factor: float,
    scale: float,
) -> None:
    """The mean over runs; the `place`-th arm's colour and, beyond ten arms, style."""
    by_round = [{index: (spent, value) for index, spent, value in path} for path in paths]
    rounds = sorted(set.intersection(*map(set, by_round)))
    if not rounds:
        return
    points = np.array([[run[index] for index in rounds] for run in by_round]).mean(axis=0)
    spent, values = points[:, 0] * factor, points[:, 1] * scale
    style = STYLES[place // 10 % len(STYLES)]
    (line,) = axes.plot(spent, values, style, color=f"C{place % 10}", linewidth=1.6, label=name)
    axes.plot(spent[-1:], values[-1:], "o", color=line.get_color(), markersize=5)
