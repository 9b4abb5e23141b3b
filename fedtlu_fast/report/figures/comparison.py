"""The picture of a comparison: curves, gains over random, and which block was updated when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from fedtlu_fast.report.aggregate.curves import Curve
from fedtlu_fast.report.arms import BASELINE, arm_names
from fedtlu_fast.report.figures.arm_curves import coincident, same_line
from fedtlu_fast.report.figures.curves import (
    Rows,
    draw_band,
    draw_curve,
    draw_level,
    dress,
    finish_curves,
    tested_values,
)
from fedtlu_fast.report.figures.maps import extent_of, label_blocks, map_height, say
from fedtlu_fast.report.figures.sentence import write_above
from fedtlu_fast.report.figures.style import INK, MOST_LABELS, colours
from fedtlu_fast.report.headline import headline_of_arms
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.tasks.metrics import Figure as Quality

MAP_TITLE = 9
"""The size of the titles of maps, in points."""


def comparison_figure(results: Sequence[ArmResult], blocks: Sequence[str], sentence: str = "") -> Figure:
    """Draws the curves of all selectors, their gains over random, and a map of the updated blocks for each.

    Arms without targeted rounds (references) are drawn as levels.

    Args:
        results: the arms, with any seeds.
        blocks: the names of the blocks among which selectors choose, from input to output.
        sentence: above the whole picture; empty for none.
    """
    quality = headline_of_arms(results)
    levels = [result for result in results if not any(map(_late, result.metrics))]
    results = [result for result in results if result not in levels] or results
    selectors = list(dict.fromkeys(result.selector for result in results))
    choosing = [name for name in selectors if name != "full"] or selectors
    shades = colours(arm_names([*results, *levels]))
    warmup = int(results[0].summary["warmup_rounds"])
    maps = map_height(blocks)
    figure = Figure(figsize=(11, 4.4 + maps), dpi=130, layout="constrained")
    write_above(figure, sentence)
    rows = figure.add_gridspec(2, 1, height_ratios=(3.6, maps + 0.4))
    gains = BASELINE in selectors and len(selectors) > 1
    panels = rows[0].subgridspec(1, 2 if gains else 1, width_ratios=(3, 2) if gains else (1,))
    curves = figure.add_subplot(panels[0, 0])
    drawn = {}
    for name in selectors:
        logs = [result.metrics for result in results if result.selector == name]
        drawn[name] = Curve(*tested_values(logs, quality))
        draw_curve(curves, name, logs, quality, shades[name])
    for name in dict.fromkeys(level.selector for level in levels if level not in results):
        found = [level.summary[quality.column] for level in levels if level.selector == name]
        draw_level(curves, name, found, quality, shades[name])
    finish_curves(
        curves,
        warmup,
        results[0].metrics[-1]["round"],
        [row[quality.column] for r in results for row in r.metrics if _late(row)],
        quality,
    )
    notes = [same_line(names) for names in coincident(drawn, warmup + 1)]
    curves.set_title("\n".join([f"Global test, {_seeds(results)}", *notes]), fontsize=9, loc="left")
    _limit_rounds(curves, results[0].metrics, warmup)
    if gains:
        _gains(figure.add_subplot(panels[0, 1]), results, shades, warmup, quality)
    grid = rows[1].subgridspec(1, len(choosing))
    titles = _map_titles(choosing, figure.get_figwidth() / len(choosing))
    first: Axes | None = None
    for column, name in enumerate(choosing):
        axes = figure.add_subplot(grid[0, column], sharey=first)
        _map(axes, [result.metrics for result in results if result.selector == name], blocks, warmup)
        axes.set_title(titles[name], fontsize=MAP_TITLE, color=shades[name], loc="left")
        axes.tick_params(labelleft=first is None)
        first = first or axes
    grey = "" if len({result.seed for result in results}) == 1 else "; black: in all seeds"
    figure.supxlabel(
        f"Maps: dark where a block was updated{grey}. At the right: the share of the rounds that updated it.",
        fontsize=8,
    )
    return figure


def _map_titles(names: Sequence[str], width: float) -> dict[str, str]:
    """Returns the title of the map of each arm, of as many lines as it needs.

    Args:
        names: the names of the arms.
        width: of one map in inches, with its labels.
    """
    letters = int(width * 72 / (0.6 * MAP_TITLE))
    said = {name: f"{name}: updated blocks" for name in names}
    if all(len(text) <= letters for text in said.values()):
        return said
    return {name: f"{fill(f'{name}:', letters, break_on_hyphens=False)}\nupdated blocks" for name in names}


def _gains(
    axes: Axes, results: Sequence[ArmResult], shades: Mapping[str, str], warmup: int, quality: Quality
) -> None:
    """Draws how much better the headline is than random's with the same seed, in per cent of random's."""
    baseline = {result.seed: result.metrics for result in results if result.selector == BASELINE}
    axes.axhline(0, color=shades[BASELINE], linewidth=1.8, label=BASELINE)
    for name in shades:
        own = [r for r in results if r.selector == name and r.seed in baseline]
        if name == BASELINE or not own:
            continue
        rounds, values = tested_values([r.metrics for r in own], quality)
        others = [{row["round"]: row[quality.column] for row in baseline[r.seed]} for r in own]
        random = np.array([[other.get(index) for index in rounds] for other in others], dtype=np.float64)
        better = values - random if quality.better == "higher" else random - values
        with np.errstate(divide="ignore", invalid="ignore"):
            draw_band(axes, name, rounds, 100 * better / np.abs(random), shades[name])
    axes.set_ylabel(f"{quality.better} {quality.title} than random, %", fontsize=9)
    axes.set_title("Gain over random, seed by seed (higher is better)", fontsize=9, loc="left")
    dress(axes, legend=False)
    _limit_rounds(axes, results[0].metrics, warmup)


def _late(row: dict[str, Any]) -> bool:
    return not row["warmup"]


def _limit_rounds(axes: Axes, metrics: Rows, warmup: int) -> None:
    """Leaves out the warm-up, in which all arms are the same; only its last round is shown."""
    last = metrics[-1]["round"]
    axes.set_xlim(warmup - 0.5 if 0 < warmup < last else 0.5, last + 0.5)


def _seeds(results: Sequence[ArmResult]) -> str:
    count = len({result.seed for result in results})
    return "one seed" if count == 1 else f"mean and range of {count} seeds"


def _map(axes: Axes, runs: Sequence[Rows], blocks: Sequence[str], warmup: int) -> None:
    """Draws the share of runs that updated a block in a round; at the right stands its mean over rounds."""
    targeted = [[row for row in run if row["round"] > warmup] for run in runs]
    rounds = [row["round"] for row in targeted[0]]
    if not blocks:
        say(axes, "no like blocks")
        return
    if not rounds:
        say(axes, "every round was warm-up")
        return
    chosen = [[[block in row["selected"] for row in run] for block in blocks] for run in targeted]
    shares = np.mean(chosen, axis=0)
    tint = LinearSegmentedColormap.from_list("chosen", ["#F7F7F7", INK])
    extent = extent_of(rounds, blocks)
    axes.imshow(shares, aspect="auto", cmap=tint, vmin=0, vmax=1, interpolation="nearest", extent=extent)
    label_blocks(axes, blocks)
    if len(blocks) <= MOST_LABELS:
        right = axes.secondary_yaxis("right")
        right.set_yticks(range(len(blocks)), [f"{100 * share:.0f}%" for share in shares.mean(axis=1)])
        right.tick_params(labelsize=7, length=0)
    axes.set_xlabel("round", fontsize=8)
