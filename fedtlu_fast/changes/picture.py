"""Draws a scored change: bars for blocks and kinds, a map of layers for a model of like blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from fedtlu_fast.changes.ranking import Row

if TYPE_CHECKING:
    from fedtlu_fast.changes.result import By, ScoredChange

COLOUR, UNIQUE, FAINT = "#D55E00", "#777777", "#DDDDDD"
MOST = 60
"""The largest number of bars; the best ones are shown."""


def change_figure(scored: ScoredChange, by: By, metric: str | None) -> Figure:
    """Returns the picture of ``scored.rows(by, metric)``.

    Blocks are bars in the order of the model, kinds are bars with the best first. Layers are a map with a row
    for each kind of like layers and a column for each block; a model without like layers has bars instead.

    Raises:
        InputError: See `ScoredChange.rows`.
    """
    rows = scored.rows(by, metric)
    title = f"{metric or scored.metric} of the change, by {by}"
    if by == "layer" and any(row["rank"] for row in rows):
        return _map(scored, {row["name"]: row["value"] for row in rows}, title)
    best = sorted(rows, key=lambda row: -row["value"])[:MOST]
    if by == "block":
        places = {block.name: place for place, block in enumerate(scored.layout.blocks)}
        best.sort(key=lambda row: places[row["name"]])
    if len(best) < len(rows):
        title += f" ({len(best)} of {len(rows)})"
    return _bars(best, title)


def _bars(rows: Sequence[Row], title: str) -> Figure:
    figure = Figure(figsize=(8, 1.2 + 0.22 * len(rows)), dpi=130, layout="constrained")
    axes: Axes = figure.subplots()
    values = [max(row["value"], 0.0) for row in rows]
    colours = [COLOUR if row.get("rank", 1) else UNIQUE for row in rows]
    axes.barh(range(len(rows)), values, color=colours)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=7)
    axes.invert_yaxis()
    if len({value for value in values if value > 0}) > 1:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(_plain)
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title, fontsize=9)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _plain(value: float, position: float) -> str:
    """Writes a number without formulas, which pictures of names cannot hold."""
    return f"{value:.0e}"


def _map(scored: ScoredChange, values: dict[str, float], title: str) -> Figure:
    like = [kind for kind in scored.kinds if kind.group]
    columns = max(len(kind.layers) for kind in like)
    shown = np.full((len(like), columns), np.nan)
    for place, kind in enumerate(like):
        for column, layer in enumerate(kind.layers):
            value = values[scored.layout.layers[layer].name]
            shown[place, column] = value if value > 0 else np.nan
    size = (6 + 0.3 * columns, 1.5 + 0.25 * len(like))
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    axes: Axes = figure.subplots()
    finite = shown[np.isfinite(shown)]
    norm: Normalize | None = LogNorm(finite.min(), finite.max()) if np.unique(finite).size > 1 else None
    image = axes.imshow(shown, aspect="auto", cmap="viridis", norm=norm, interpolation="nearest")
    axes.set_facecolor(FAINT)  # layers without a value
    axes.set_yticks(range(len(like)), [f"{kind.name} ({kind.role})" for kind in like], fontsize=7)
    axes.set_xlabel("number of the block among like blocks")
    axes.set_title(title, fontsize=9)
    bar = figure.colorbar(image, ax=axes, format=_plain)
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    return figure
