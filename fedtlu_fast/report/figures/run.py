"""Pictures of one run: the headline over rounds, and scores and choices of blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from fedtlu_fast.report.figures.curves import Rows, draw_curve, finish_curves
from fedtlu_fast.report.figures.maps import extent_of, label_blocks, map_height, say
from fedtlu_fast.report.figures.style import COLOURS, INK, colours
from fedtlu_fast.tasks.metrics import PERPLEXITY
from fedtlu_fast.tasks.metrics import Figure as Quality

NO_SCORE = "#C6DBEF"


def curves_figure(metrics: Rows, selector: str, warmup: int, quality: Quality = PERPLEXITY) -> Figure:
    """Draws the headline over the rounds of one run: the global test, and local tests if there are some."""
    local_name = f"local_{quality.name}"
    figure = Figure(figsize=(8, 3.6), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    draw_curve(axes, "global test", [metrics], quality, colours([selector])[selector])
    local = [row for row in metrics if row[local_name] is not None]
    if local:
        axes.plot(
            [row["round"] for row in local],
            [quality.scale * row[local_name] for row in local],
            "o--",
            color=INK,
            markersize=4,
            linewidth=1,
            label="local test",
        )
    names = (quality.column, local_name)
    seen = [row[name] for row in metrics for name in names if row["round"] >= warmup]
    last = metrics[-1]["round"]
    finish_curves(axes, warmup, last, seen, quality)
    axes.set_xlim(0.5, last + 0.5)
    low, high = axes.get_ylim()
    tested = [quality.scale * row[quality.column] for row in metrics if row[quality.column] is not None]
    if any(value < low or value > high for value in tested):
        axes.set_title("Some early rounds lie outside the picture", fontsize=9, loc="left")
    return figure


def selection_figure(selection: Rows, blocks: Sequence[str], warmup: int, unique: Sequence[str]) -> Figure:
    """Draws the score of every block in every round, and marks the updated blocks.

    Args:
        selection: the rows of selection.jsonl.
        blocks: the names of the blocks among which the selector chooses, from input to output; may be empty.
        warmup: the number of rounds that updated every block.
        unique: the names of the blocks that are also updated, in every round.
    """
    figure = Figure(figsize=(8, 1.0 + map_height(blocks)), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    rounds = [row["round"] for row in selection]
    if not blocks:
        say(axes, "This model has no like blocks to choose among.")
        return figure
    found = [[row["block_scores"][block] for row in selection] for block in blocks]
    scores = np.array(found, np.float64)  # a score that was no number is None in the rows, and NaN here
    safe = np.log10(np.where(scores > 0, scores, np.nan))
    extent = extent_of(rounds, blocks)
    image = axes.imshow(safe, aspect="auto", cmap="Greys", interpolation="nearest", extent=extent)
    chosen = [
        (row["round"], line)
        for row in selection
        for line, block in enumerate(blocks)
        if row["round"] > warmup and block in row["selected"]
    ]
    size = float(np.clip(150 / len(rounds), 1.5, 5))
    if chosen:
        axes.plot(*zip(*chosen, strict=True), "s", color=COLOURS["fedtlu"], markersize=size)
    label_blocks(axes, blocks)
    if warmup:
        axes.axvline(warmup + 0.5, color=INK, linewidth=0.8, linestyle=":")
    bar = figure.colorbar(image, ax=axes, fraction=0.03)
    bar.set_label("log10 of block score", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    axes.set_title("Score of every block (grey); updated blocks are marked", fontsize=9, loc="left")
    until = "round 1" if warmup == 1 else f"rounds 1 to {warmup}"
    notes = [f"{until}: warm-up, every block"] if warmup else []
    if np.isnan(safe).any():
        axes.set_facecolor(NO_SCORE)
        notes.append("blue: no score above 0")
    if unique:
        more = f" and {len(unique) - 4} more" if len(unique) > 4 else ""
        notes.append(f"also updated, in every round: {', '.join(unique[:4])}{more}")
    axes.set_xlabel("\n".join(["round", *notes]), fontsize=8)
    return figure
