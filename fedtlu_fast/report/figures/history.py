"""The picture of a score history: the rank of every block in every round, and how much of it survives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedtlu_fast.report.aggregate.stability import GroupHistory, Matrix, standing, taus
from fedtlu_fast.report.figures.style import COLOURS, FAINT, INK, MOST_LABELS
from fedtlu_fast.shown import short_names

MOST_CURVES = 6
"""More groups than this are shown by their mean and range."""
STEADY = 10
"""The number of rounds in the running mean of tau."""


def history_figure(groups: Sequence[GroupHistory]) -> Figure:
    """Draws the rank of each block within its group, and below it tau over rounds.

    Dark is best, and chosen blocks are marked.

    Args:
        groups: the groups of one run, with one targeted round or more.
    """
    blocks = [block for group in groups for block in group.blocks]
    height = float(np.clip(0.24 * len(blocks), 1.2, 12))
    figure = Figure(figsize=(8, 3.2 + height), dpi=130, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(height, 2.0))
    _ranks(figure, above, groups, blocks)
    _taus(below, groups)
    if 1 < len(groups) <= MOST_CURVES:
        figure.legend(
            *below.get_legend_handles_labels(), frameon=False, fontsize=7, ncols=2, loc="outside lower center"
        )
    below.set_xlabel("round", fontsize=8)
    below.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    return figure


def _ranks(figure: Figure, axes: Axes, groups: Sequence[GroupHistory], blocks: Sequence[str]) -> None:
    rounds = groups[0].rounds
    places = np.concatenate([standing(group.scores) for group in groups], axis=1)
    extent = (rounds[0] - 0.5, rounds[-1] + 0.5, len(blocks) - 0.5, -0.5)
    image = axes.imshow(
        places.T, aspect="auto", cmap="Greys", vmin=-0.3, vmax=1.3, interpolation="nearest", extent=extent
    )
    chosen = np.concatenate([group.chosen for group in groups], axis=1)
    when, which = chosen.nonzero()
    size = float(np.clip(150 / len(rounds), 1.5, 5))
    axes.plot(np.array(rounds)[when], which, "s", color=COLOURS["fedtlu"], markersize=size)
    for edge in np.cumsum([len(group.blocks) for group in groups])[:-1]:
        axes.axhline(edge - 0.5, color=INK, linewidth=0.8)
    step = -(-len(blocks) // MOST_LABELS)
    axes.set_yticks(range(0, len(blocks), step), short_names(blocks)[::step])
    axes.tick_params(labelsize=8)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, ticks=(0, 1))
    bar.ax.set_yticklabels(["last", "best"], fontsize=8)
    bar.ax.set_ylim(0, 1)  # the other greys would be too light and too dark to tell apart
    axes.set_title("Rank of each block among like blocks; updated blocks are marked", fontsize=9, loc="left")


def _taus(axes: Axes, groups: Sequence[GroupHistory]) -> None:
    rounds, found = groups[0].rounds[1:], [taus(group) for group in groups]
    axes.axhline(0, color=INK, linewidth=0.8, linestyle=":")
    axes.set_ylim(-1.08, 1.08)
    axes.set_ylabel("Kendall's tau with\nthe round before", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if not rounds:
        return
    values = np.array(found)
    if len(groups) > MOST_CURVES:
        known = ~np.isnan(values).all(axis=0)
        where, shown = np.array(rounds)[known], values[:, known]
        low, high = np.nanmin(shown, axis=0), np.nanmax(shown, axis=0)
        axes.fill_between(where, low, high, color=COLOURS["random"], alpha=0.15, linewidth=0)
        axes.plot(where, np.nanmean(shown, axis=0), color=COLOURS["random"], linewidth=1.2)
        axes.set_title(f"Mean and range of {len(groups)} groups", fontsize=9, loc="left")
        return
    for group, own in zip(groups, found, strict=True):
        (line,) = axes.plot(rounds, own, "o", markersize=2.5, alpha=0.5, label=group.group)
        if len(own) > 2 * STEADY:
            axes.plot(rounds, _running(own), color=line.get_color(), linewidth=1.6)
    smooth = f"; line: running mean of {STEADY}" if len(rounds) > 2 * STEADY else ""
    axes.set_title(f"How much of the ranking survives a round{smooth}", fontsize=9, loc="left")


def _running(values: Matrix) -> Matrix:
    """Returns the mean of the last `STEADY` numbers, without NaN; NaN if there is no number."""
    known = ~np.isnan(values)
    kernel = np.ones(STEADY)
    total = np.convolve(np.where(known, values, 0), kernel)[: len(values)]
    count = np.convolve(known.astype(np.float64), kernel)[: len(values)]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
