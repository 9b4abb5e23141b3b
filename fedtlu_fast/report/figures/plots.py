"""Pictures of runs: the headline over rounds, and which block was updated when."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fedtlu_fast.report.arms import BASELINE
from fedtlu_fast.report.headline import headline_of_arms
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.tasks.metrics import PERPLEXITY
from fedtlu_fast.tasks.metrics import Figure as Quality

Rows = Sequence[dict[str, Any]]

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
MOST_LABELS = 40
"""A map with more blocks than this names only some of them."""


def comparison_figure(results: Sequence[ArmResult], blocks: Sequence[str]) -> Figure:
    """Curves of all selectors, their gain over random, and a map of chosen blocks for each that chooses.

    Arms without targeted rounds of their own (references) are levels.

    Args:
        results: arms, of any seeds.
        blocks: names of the blocks that are chosen among, input side first.
    """
    quality = headline_of_arms(results)
    levels = [result for result in results if not any(map(_late, result.metrics))]
    results = [result for result in results if result not in levels] or results
    selectors = list(dict.fromkeys(result.selector for result in results))
    choosing = [name for name in selectors if name != "full"] or selectors
    warmup = int(results[0].summary["warmup_rounds"])
    maps = _map_height(blocks)
    figure = Figure(figsize=(11, 4.4 + maps), dpi=130, layout="constrained")
    rows = figure.add_gridspec(2, 1, height_ratios=(3.6, maps + 0.4))
    gains = BASELINE in selectors and len(selectors) > 1
    panels = rows[0].subgridspec(1, 2 if gains else 1, width_ratios=(3, 2) if gains else (1,))
    curves = figure.add_subplot(panels[0, 0])
    for name in selectors:
        _curve(curves, name, [result.metrics for result in results if result.selector == name], quality)
    for name in dict.fromkeys(level.selector for level in levels if level not in results):
        found = [level.summary[quality.column] for level in levels if level.selector == name]
        _level(curves, name, found, quality)
    _finish_curves(
        curves,
        warmup,
        results[0].metrics[-1]["round"],
        [row[quality.column] for r in results for row in r.metrics if _late(row)],
        quality,
    )
    curves.set_title(f"Global test, {_seeds(results)}", fontsize=9, loc="left")
    _limit_rounds(curves, results[0].metrics, warmup)
    if gains:
        _gains(figure.add_subplot(panels[0, 1]), results, selectors, warmup, quality)
    grid = rows[1].subgridspec(1, len(choosing))
    first: Axes | None = None
    for column, name in enumerate(choosing):
        axes = figure.add_subplot(grid[0, column], sharey=first)
        _map(axes, [result.metrics for result in results if result.selector == name], blocks, warmup)
        axes.set_title(f"{name}: updated blocks", fontsize=9, color=colour(name), loc="left")
        axes.tick_params(labelleft=first is None)
        first = first or axes
    grey = "" if len({result.seed for result in results}) == 1 else "; black: in all seeds"
    figure.supxlabel(
        f"Maps: dark where a block was updated{grey}. At the right of each row: its share of the rounds.",
        fontsize=8,
    )
    return figure


def curves_figure(metrics: Rows, selector: str, warmup: int, quality: Quality = PERPLEXITY) -> Figure:
    """The headline over the rounds of one run: global test, and local test where it was made."""
    local_name = f"local_{quality.name}"
    figure = Figure(figsize=(8, 3.6), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    _curve(axes, "global test", [metrics], quality, shade=colour(selector))
    local = [row for row in metrics if row[local_name] is not None]
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
    _finish_curves(axes, warmup, last, seen, quality)
    axes.set_xlim(0.5, last + 0.5)
    low, high = axes.get_ylim()
    tested = [quality.scale * row[quality.column] for row in metrics if row[quality.column] is not None]
    if any(value < low or value > high for value in tested):
        axes.set_title("Early rounds outside of the picture are cut off", fontsize=9, loc="left")
    return figure


def selection_figure(selection: Rows, blocks: Sequence[str], warmup: int, ungrouped: Sequence[str]) -> Figure:
    """Scores of every block in every round, and which were updated.

    Args:
        selection: as in selection.jsonl.
        blocks: names of the blocks that are chosen among, input side first; may be none.
        warmup: rounds that updated every block.
        ungrouped: names of blocks that are updated in every round besides.
    """
    figure = Figure(figsize=(8, 1.0 + _map_height(blocks)), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    rounds = [row["round"] for row in selection]
    if not blocks:
        _say(axes, "This model has no like blocks to choose among.")
        return figure
    scores = np.array([[row["block_scores"][block] for row in selection] for block in blocks])
    safe = np.log10(np.where(scores > 0, scores, np.nan))
    extent = _extent(rounds, blocks)
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
    _label_blocks(axes, blocks)
    if warmup:
        axes.axvline(warmup + 0.5, color=INK, linewidth=0.8, linestyle=":")
    bar = figure.colorbar(image, ax=axes, fraction=0.03)
    bar.set_label("log10 of block score", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    axes.set_title("Score of every block (grey); updated ones are marked", fontsize=9, loc="left")
    notes = [f"rounds 1 to {warmup}: warm-up, every block"] if warmup else []
    if ungrouped:
        more = f" and {len(ungrouped) - 4} more" if len(ungrouped) > 4 else ""
        notes.append(f"in every round besides: {', '.join(ungrouped[:4])}{more}")
    axes.set_xlabel("\n".join(["round", *notes]), fontsize=8)
    return figure


def colour(selector: str) -> str:
    """The colour that stands for a selector in every picture."""
    return COLOURS.get(selector, OTHERS[sum(map(ord, selector)) % len(OTHERS)])


def _curve(axes: Axes, name: str, runs: Sequence[Rows], quality: Quality, shade: str | None = None) -> None:
    rounds, values = _tested(runs, quality)
    values = quality.scale * values
    _band(axes, name, rounds, values, shade or colour(name))


def _level(axes: Axes, name: str, values: Sequence[float | None], quality: Quality) -> None:
    """A dotted line at the mean of what an arm without rounds reached."""
    found = [quality.scale * value for value in values if value is not None]
    if found:
        axes.axhline(sum(found) / len(found), color=colour(name), linewidth=1.2, linestyle=":", label=name)


def _tested(runs: Sequence[Rows], quality: Quality) -> tuple[list[int], NDArray[np.float64]]:
    """The rounds with a test, and [runs, rounds]: NaN where a run has no finite value."""
    tested = [{row["round"]: row[quality.column] for row in run} for run in runs]
    rounds = sorted({index for run in tested for index, value in run.items() if value is not None})
    values = [[run.get(index) for index in rounds] for run in tested]
    return rounds, np.array(values, dtype=np.float64)  # None becomes NaN


def _band(axes: Axes, name: str, rounds: list[int], values: NDArray[np.float64], shade: str) -> None:
    """Mean over runs, and a band from the least to the largest where there are several."""
    marker = "o" if len(rounds) < 10 else None
    axes.plot(
        rounds, values.mean(axis=0), color=shade, linewidth=1.8, label=name, marker=marker, markersize=4
    )
    if len(values) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(rounds, low, high, color=shade, alpha=0.15, linewidth=0)


def _finish_curves(
    axes: Axes, warmup: int, rounds: int, values: Sequence[float | None], quality: Quality
) -> None:
    """Limits, marks and labels; `values` are those that have to be seen."""
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
    _dress(axes)


def _gains(
    axes: Axes, results: Sequence[ArmResult], selectors: Sequence[str], warmup: int, quality: Quality
) -> None:
    """How much better the headline is than random's with the same seed, in per cent of random's."""
    baseline = {result.seed: result.metrics for result in results if result.selector == BASELINE}
    axes.axhline(0, color=colour(BASELINE), linewidth=1.8, label=BASELINE)
    for name in selectors:
        own = [r for r in results if r.selector == name and r.seed in baseline]
        if name == BASELINE or not own:
            continue
        rounds, values = _tested([r.metrics for r in own], quality)
        others = [{row["round"]: row[quality.column] for row in baseline[r.seed]} for r in own]
        random = np.array([[other.get(index) for index in rounds] for other in others], dtype=np.float64)
        better = values - random if quality.better == "higher" else random - values
        with np.errstate(divide="ignore", invalid="ignore"):
            _band(axes, name, rounds, 100 * better / np.abs(random), colour(name))
    axes.set_ylabel(f"{quality.better} {quality.title} than random, %", fontsize=9)
    axes.set_title("Gain over random, seed by seed (higher is better)", fontsize=9, loc="left")
    _dress(axes, legend=False)
    _limit_rounds(axes, results[0].metrics, warmup)


def _dress(axes: Axes, legend: bool = True) -> None:
    axes.set_xlabel("round", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.tick_params(labelsize=8)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(frameon=False, fontsize=9, loc="upper right")


def _late(row: dict[str, Any]) -> bool:
    return not row["warmup"]


def _limit_rounds(axes: Axes, metrics: Rows, warmup: int) -> None:
    """Leaves out the warm-up, in which all arms are the same, but for its last round."""
    last = metrics[-1]["round"]
    axes.set_xlim(warmup - 0.5 if 0 < warmup < last else 0.5, last + 0.5)


def _seeds(results: Sequence[ArmResult]) -> str:
    count = len({result.seed for result in results})
    return "one seed" if count == 1 else f"mean and range of {count} seeds"


def _map(axes: Axes, runs: Sequence[Rows], blocks: Sequence[str], warmup: int) -> None:
    """Share of the runs in which a block was updated in a round; on the right, its mean over rounds."""
    targeted = [[row for row in run if row["round"] > warmup] for run in runs]
    rounds = [row["round"] for row in targeted[0]]
    if not blocks:
        _say(axes, "no like blocks")
        return
    if not rounds:
        _say(axes, "every round was warm-up")
        return
    chosen = [[[block in row["selected"] for row in run] for block in blocks] for run in targeted]
    shares = np.mean(chosen, axis=0)
    tint = LinearSegmentedColormap.from_list("chosen", ["#F7F7F7", INK])
    extent = _extent(rounds, blocks)
    axes.imshow(shares, aspect="auto", cmap=tint, vmin=0, vmax=1, interpolation="nearest", extent=extent)
    _label_blocks(axes, blocks)
    if len(blocks) <= MOST_LABELS:
        right = axes.secondary_yaxis("right")
        right.set_yticks(range(len(blocks)), [f"{100 * share:.0f}%" for share in shares.mean(axis=1)])
        right.tick_params(labelsize=7, length=0)
    axes.set_xlabel("round", fontsize=8)


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, fontsize=9)
    axes.set_axis_off()


def _map_height(blocks: Sequence[str]) -> float:
    """Inches for a map of these blocks."""
    return float(np.clip(0.24 * len(blocks), 1.2, 12))


def _extent(rounds: Sequence[int], blocks: Sequence[str]) -> tuple[float, float, float, float]:
    return rounds[0] - 0.5, rounds[-1] + 0.5, len(blocks) - 0.5, -0.5


def _label_blocks(axes: Axes, blocks: Sequence[str]) -> None:
    step = -(-len(blocks) // MOST_LABELS)
    axes.set_yticks(range(0, len(blocks), step), short_names(blocks)[::step])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.tick_params(labelsize=8)


def short_names(blocks: Sequence[str]) -> list[str]:
    """Block names without what all of them begin with: ``transformer.h.3`` -> ``h.3``."""
    paths = [block.split(".") for block in blocks]
    shared = len(list(takewhile(lambda column: len(set(column)) == 1, zip(*paths, strict=False))))
    shared = min(shared, *(len(path) - 1 for path in paths)) if paths else 0
    if any(path[shared].isdigit() for path in paths):
        shared = max(0, shared - 1)
    return [".".join(path[shared:]) for path in paths]
