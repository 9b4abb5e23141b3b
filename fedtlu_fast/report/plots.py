"""Pictures of runs: perplexity over rounds, and which block was updated when."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from fedtlu_fast.simulation.compare import ArmResult

# Okabe and Ito's palette, told apart by colour-blind readers too.
COLOURS = {
    "fedtlu": "#D55E00",
    "random": "#0072B2",
    "last": "#009E73",
    "first": "#CC79A7",
    "full": "#555555",
}
OTHERS = ("#56B4E9", "#E69F00", "#F0E442", "#000000")
INK, FAINT = "#333333", "#DDDDDD"


def comparison_figure(results: Sequence[ArmResult], blocks: Sequence[str]) -> Figure:
    """Curves of all selectors above, below them one map of chosen blocks for each that chooses.

    Args:
        results: arms, of any seeds.
        blocks: names of the blocks that are chosen among, input side first.
    """
    selectors = list(dict.fromkeys(result.selector for result in results))
    choosing = [name for name in selectors if name != "full"] or selectors
    height = 3.6 + (0.35 + 0.22 * max(len(blocks), 4)) * 1.0
    figure = Figure(figsize=(10, height + 0.6), dpi=130, layout="constrained")
    grid = figure.add_gridspec(2, len(choosing), height_ratios=(3.4, height - 3.4))
    top = figure.add_subplot(grid[0, :])
    for name in selectors:
        _curve(top, name, [result.metrics for result in results if result.selector == name])
    warmup = int(results[0].summary["warmup_rounds"])
    _finish_curves(top, warmup, [row for result in results for row in result.metrics])
    first: Axes | None = None
    for column, name in enumerate(choosing):
        axes = figure.add_subplot(grid[1, column], sharey=first)
        _map(axes, [result.metrics for result in results if result.selector == name], blocks, warmup)
        axes.set_title(f"{name}: updated blocks", fontsize=9, color=colour(name), loc="left")
        axes.tick_params(labelleft=first is None)
        first = first or axes
    return figure


def curves_figure(metrics: Sequence[dict[str, Any]], selector: str, warmup: int) -> Figure:
    """Perplexity over the rounds of one run: global test, and local test where it was made."""
    figure = Figure(figsize=(8, 3.6), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    _curve(axes, "global test", [metrics], shade=colour(selector))
    local = [row for row in metrics if row["local_perplexity"] is not None]
    axes.plot(
        [row["round"] for row in local],
        [row["local_perplexity"] for row in local],
        "o--",
        color=INK,
        markersize=4,
        linewidth=1,
        label="local test",
    )
    _finish_curves(axes, warmup, metrics)
    return figure


def selection_figure(
    selection: Sequence[dict[str, Any]], blocks: Sequence[str], warmup: int, ungrouped: Sequence[str]
) -> Figure:
    """Scores of every block in every round, the chosen ones framed; a strip tells what was updated."""
    figure = Figure(figsize=(8, 1.6 + 0.24 * max(len(blocks), 4)), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    rounds = [row["round"] for row in selection]
    scores = np.array([[row["block_scores"][block] for row in selection] for block in blocks])
    safe = np.log10(np.where(scores > 0, scores, np.nan))
    image = axes.imshow(
        safe, aspect="auto", cmap="Greys", interpolation="nearest", extent=_extent(rounds, blocks)
    )
    for column, row in enumerate(selection):
        for line, block in enumerate(blocks):
            if block in row["selected"] and row["round"] > warmup:
                axes.plot(rounds[column], line, "s", color=COLOURS["fedtlu"], markersize=3.5)
    _label_blocks(axes, blocks)
    if warmup:
        axes.axvline(warmup + 0.5, color=INK, linewidth=0.8, linestyle=":")
    figure.colorbar(image, ax=axes, label="log10 block score", fraction=0.03)
    always = f"; besides them in every round: {', '.join(map(_short, ungrouped))}" if ungrouped else ""
    axes.set_title(
        f"Score of every block (grey) and the updated ones (orange){always}", fontsize=8, loc="left"
    )
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG file's bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def colour(selector: str) -> str:
    """The colour that stands for a selector in every picture."""
    return COLOURS.get(selector, OTHERS[sum(map(ord, selector)) % len(OTHERS)])


def _curve(axes: Axes, name: str, runs: Sequence[Sequence[dict[str, Any]]], shade: str | None = None) -> None:
    """Mean over runs, and a band from the least to the largest where there are several."""
    tested = [[row for row in run if row["test_perplexity"] is not None] for run in runs]
    rounds = [row["round"] for row in tested[0]]
    values = np.array([[row["test_perplexity"] for row in run] for run in tested])
    line = shade or colour(name)
    axes.plot(rounds, values.mean(axis=0), color=line, linewidth=1.8, label=name)
    if len(runs) > 1:
        axes.fill_between(rounds, values.min(axis=0), values.max(axis=0), color=line, alpha=0.15, linewidth=0)


def _finish_curves(axes: Axes, warmup: int, rows: Sequence[dict[str, Any]]) -> None:
    shown = [r["test_perplexity"] for r in rows if r["test_perplexity"] and r["round"] >= max(warmup, 1)]
    if shown:
        low, high = min(shown), max(shown)
        # The fall during warm-up would flatten everything that the picture is about.
        axes.set_ylim(low - 0.05 * (high - low) - 1e-9, high + 0.15 * (high - low) + 1e-9)
    if warmup:
        axes.axvline(warmup + 0.5, color=INK, linewidth=0.8, linestyle=":")
        axes.annotate(
            "targeting starts",
            (warmup + 0.5, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -12),
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )
    axes.set_xlim(1, max(row["round"] for row in rows))
    axes.set_xlabel("round")
    axes.set_ylabel("test perplexity (lower is better)")
    axes.grid(color=FAINT, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)


def _map(axes: Axes, runs: Sequence[Sequence[dict[str, Any]]], blocks: Sequence[str], warmup: int) -> None:
    """Share of the runs in which a block was updated in a round."""
    targeted = [[row for row in run if row["round"] > warmup] for run in runs]
    rounds = [row["round"] for row in targeted[0]]
    if not rounds:
        axes.text(0.5, 0.5, "every round was warm-up", ha="center", va="center", transform=axes.transAxes)
        return
    shares = np.mean(
        [[[block in row["selected"] for row in run] for block in blocks] for run in targeted], axis=0
    )
    tint = LinearSegmentedColormap.from_list("chosen", ["#F7F7F7", INK])
    axes.imshow(
        shares,
        aspect="auto",
        cmap=tint,
        vmin=0,
        vmax=1,
        interpolation="nearest",
        extent=_extent(rounds, blocks),
    )
    _label_blocks(axes, blocks)


def _extent(rounds: Sequence[int], blocks: Sequence[str]) -> tuple[float, float, float, float]:
    return rounds[0] - 0.5, rounds[-1] + 0.5, len(blocks) - 0.5, -0.5


def _label_blocks(axes: Axes, blocks: Sequence[str]) -> None:
    axes.set_yticks(range(len(blocks)), [_short(block) for block in blocks], fontsize=8)
    axes.set_xlabel("round", fontsize=9)


def _short(block: str) -> str:
    """The telling end of a block's name: ``transformer.h.3`` -> ``h.3``."""
    return ".".join(block.split(".")[-2:])
