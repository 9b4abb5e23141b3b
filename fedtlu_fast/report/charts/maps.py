"""Maps: rows by stops, a shade for each cell, such as blocks by rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.report.charts.chart import (
    Chart,
    below_axis,
    colour,
    drawing,
    label_room,
    shortened,
)
from fedtlu_fast.report.charts.scale import Scale, thinned
from fedtlu_fast.report.charts.svg import SIDE, boxes, element, percent, square
from fedtlu_fast.report.figures.style import Style
from fedtlu_fast.report.tables import Cells

LEVELS = 5
"""Shades of a map."""
MOST_STOPS = 240
"""The largest number of stops; of more so many are shown, evenly spaced."""
MOST_ROWS = 60
"""The largest number of rows; of more, those with the largest means are shown."""
ROW = 16
"""The height of a row in CSS pixels."""
LOWEST = 96
Floats = NDArray[np.float64]
Texts = Callable[[int, int], str]
"""A function that says what a cell shows, by the places of its stop and its row."""


def map_chart(
    title: str,
    rows: Sequence[str],
    stops: Sequence[float],
    shades: Floats,
    text: Texts,
    *,
    summary: str,
    style: Style,
    numbers: Cells,
    unit: str = "round",
    names: Sequence[str] | None = None,
    marked: NDArray[np.bool_] | None = None,
    mark: float | None = None,
    right: Sequence[str] = (),
    note: str = "",
) -> Chart | None:
    """Draws a map; None if it has no row or no stop.

    Args:
        title: what the chart shows.
        rows: [B], names of the rows, from top to bottom.
        stops: [T], ascending.
        shades: [T, B], from 0 (not drawn) to 1 (darkest); NaN where there is nothing.
        text: what readings say of each cell that is drawn.
        summary: what the map says.
        style: its colour.
        numbers: the table beside the map.
        unit: what a stop is called.
        names: [T], what readings call the stops; None for their numbers.
        marked: [T, B], the cells with a dot; None for none.
        mark: where a dotted line stands; None for none.
        right: [B], labels at the right; empty for none.
        note: what else has to be said.
    """
    if not len(rows) or not len(stops):
        return None
    kept = _kept_rows(shades, marked)
    when = thinned(len(stops), MOST_STOPS)
    grid = shades[np.ix_(when, kept)]
    dots = None if marked is None else marked[np.ix_(when, kept)]
    across = _across([stops[place] for place in when])
    left_out = len(rows) - len(kept)
    if left_out:
        note = f"{note} {left_out} more rows, with the lightest shades, are left out.".strip()
    if len(when) < len(stops):
        note = f"{note} Of {len(stops)} {unit}s {len(when)} are drawn.".strip()
    labels = [shortened(rows[place]) for place in kept]
    children = [
        element(
            "text",
            text=label,
            x="0",
            y=percent((place + 0.5) / len(kept)),
            dx="-6",
            dy="0.32em",
            text_anchor="end",
            class_="tick",
        )
        for place, label in enumerate(labels)
    ]
    children += [
        element(
            "text",
            text=right[row],
            x="100%",
            y=percent((place + 0.5) / len(kept)),
            dx="5",
            dy="0.32em",
            class_="tick",
        )
        for place, row in enumerate(kept)
        if right
    ]
    told = [(tick, names[int(tick)]) for tick in range(len(stops))] if names else across.labels(6)
    ticks = [(across.share(tick), text) for tick, text in told]
    children += below_axis(ticks, "" if names else unit)
    tint = f"--c:{colour(style)}"
    children.append(square(element("rect", width=SIDE, height=SIDE, class_="ground"), *_cells(grid, tint)))
    if dots is not None and dots.any():
        places = "".join(
            f"M{SIDE * (column + 0.5) / len(when):.1f} {SIDE * (row + 0.5) / len(kept):.1f}h0"
            for column, row in zip(*dots.nonzero(), strict=True)
        )
        wide = "chosen small" if len(when) > 60 else "chosen"
        children.append(square(element("path", d=places, class_=wide)))
    if mark is not None and across.low < mark < across.high:
        at = percent(across.share(mark))
        children.append(element("line", x1=at, x2=at, y1="0", y2="100%", class_="mark"))
    readings: dict[str, Any] = {
        "kind": "map",
        "stops": [names[place] if names else f"{unit} {stops[place]:g}" for place in when],
        "x": [round(SIDE * (place + 0.5) / len(when)) for place in range(len(when))],
        "rows": [rows[place] for place in kept],
        **_worded([[text(place, row) for row in kept] for place in when]),
    }
    return Chart(
        title=title,
        summary=summary,
        drawing=drawing(f"{title}. {summary}", *children),
        readings=readings,
        numbers=numbers,
        height=max(LOWEST, ROW * len(kept)),
        gutter=label_room(labels),
        margin=label_room(right, 8) + 1,
        note=note,
    )


def _worded(texts: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The texts of cells as words and, for each cell, the number of its word: most cells say the same."""
    words = {word: place for place, word in enumerate(dict.fromkeys(word for row in texts for word in row))}
    return {"words": list(words), "text": [[words[word] for word in row] for row in texts]}


def _kept_rows(shades: Floats, marked: NDArray[np.bool_] | None) -> list[int]:
    count = shades.shape[1]
    if count <= MOST_ROWS:
        return list(range(count))
    weight = np.nan_to_num(shades).mean(axis=0)
    if marked is not None:
        weight = weight + 10 * marked.mean(axis=0)
    return sorted(np.argsort(-weight, kind="stable")[:MOST_ROWS].tolist())


def _across(stops: Sequence[float]) -> Scale:
    """The axis whose cells have their stop in the middle; where stops were left out, cells are wider."""
    step = (stops[-1] - stops[0]) / max(1, len(stops) - 1) or 1.0
    return Scale(stops[0] - step / 2, stops[-1] + step / 2, whole=True)


def _cells(grid: Floats, tint: str) -> list[Any]:
    """A path for each level of shade; cells of one level that touch in a row are one box."""
    count, rows = grid.shape
    level = np.ceil(np.nan_to_num(grid) * LEVELS - 1e-9).clip(0, LEVELS).astype(int)
    found = []
    for shade in range(1, LEVELS + 1):
        runs = []
        for row in range(rows):
            place = 0
            for same, group in groupby(level[:, row] == shade):
                width = len(list(group))
                if same:
                    runs.append((place / count, row / rows, width / count, 1 / rows))
                place += width
        if runs:
            found.append(element("path", d=boxes(runs), class_=f"cell level{shade}", style=tint))
    return found
