"""Maps of blocks by rounds: their size, their labels, and the sentence where there is no map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fedtlu_fast.report.figures.style import MOST_LABELS
from fedtlu_fast.shown import short_names


def say(axes: Axes, text: str) -> None:
    """Writes a sentence where a map would be."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, fontsize=9)
    axes.set_axis_off()


def map_height(blocks: Sequence[str]) -> float:
    """Returns the height in inches of a map of these blocks."""
    return float(np.clip(0.24 * len(blocks), 1.2, 12))


def extent_of(rounds: Sequence[int], blocks: Sequence[str]) -> tuple[float, float, float, float]:
    """Returns left, right, bottom and top of a map whose cells have their round and block as centre."""
    return rounds[0] - 0.5, rounds[-1] + 0.5, len(blocks) - 0.5, -0.5


def label_blocks(axes: Axes, blocks: Sequence[str]) -> None:
    """Labels the blocks of a map, or only some of them if there are many."""
    step = -(-len(blocks) // MOST_LABELS)
    axes.set_yticks(range(0, len(blocks), step), short_names(blocks)[::step])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.tick_params(labelsize=8)
