"""Lines over rounds, or over any other stops: means with a band from the smallest to the largest run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.report.charts.chart import (
    Chart,
    Entry,
    below_axis,
    colour,
    drawing,
    label_room,
    value_axis,
)
from fedtlu_fast.report.charts.scale import Scale, thinned
from fedtlu_fast.report.charts.svg import SIDE, area, element, line, percent, square
from fedtlu_fast.report.figures.style import Style, dash_lengths
from fedtlu_fast.report.tables import Cells

MOST_STOPS = 240
"""The largest number of stops that are drawn; of more so many are, evenly spaced."""
MOST_ROWS = 160
"""Likewise, the rows of the table of numbers."""
FEW = 12
"""Lines with fewer stops have a dot at each."""
MOST_NAMED = 6
"""The largest number of series that a summary describes."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Series:
    """One line.

    Attributes:
        name: what the legend calls it.
        style: its look.
        values: [R, T], the numbers of R runs at the chart's T stops, NaN where there is none.
        level: whether it is a level, the same at all stops.
        across: [T], where it stands at each stop if not at the stop itself, as in quality over cost.
        joined: whether a line joins its dots.
    """

    name: str
    style: Style
    values: Floats
    level: bool = False
    across: Floats | None = None
    joined: bool = True

    def spread(self) -> tuple[Floats, Floats, Floats]:
        """Mean, smallest and largest number at each stop, [T] each; NaN where no run has one."""
        known = ~np.isnan(self.values)
        there = known.any(axis=0)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(there, np.where(known, self.values, 0).sum(axis=0) / count, np.nan)
        low = np.where(there, np.where(known, self.values, np.inf).min(axis=0), np.nan)
        high = np.where(there, np.where(known, self.values, -np.inf).max(axis=0), np.nan)
        return mean, low, high


@dataclass(frozen=True)
class Axes:
    """What stands around the lines.

    Attributes:
        unit: what a stop is called, such as ``round``.
        across: the title of the horizontal axis.
        say: writes a number of the vertical axis.
        vertical: the vertical axis; None for one that shows all numbers.
        first: the first stop that is shown; earlier ones are left out. None for all.
        mark: a stop, and the words beside the dotted line there; None for no line.
        zero: whether a rule marks zero.
        ticks: stops with a label; None for round numbers.
        names: what readings call the stops; None for their numbers.
    """

    unit: str = "round"
    across: str = "round"
    say: Callable[[float], str] = "{:.2f}".format
    vertical: Scale | None = None
    first: float | None = None
    mark: tuple[float, str] | None = None
    zero: bool = False
    ticks: Sequence[tuple[float, str]] | None = None
    names: Sequence[str] | None = None


def line_chart(
    title: str, stops: Sequence[float], series: Sequence[Series], axes: Axes, *, note: str = ""
) -> Chart | None:
    """Draws a line for each series; None if no series has a number.

    Args:
        title: what the chart shows.
        stops: [T], ascending; rounds, for example.
        series: one or more, with values for these stops.
        axes: what stands around the lines.
        note: what else has to be said.
    """
    kept = [place for place, stop in enumerate(stops) if axes.first is None or stop >= axes.first]
    kept = [kept[place] for place in thinned(len(kept), MOST_STOPS)]
    at = np.array([stops[place] for place in kept], np.float64)
    names = [axes.names[place] if axes.names else f"{axes.unit} {stops[place]:g}" for place in kept]
    lines = [_Line.of(one, kept) for one in series]
    lines = [one for one in lines if not np.isnan(one.mean).all()]
    if not lines:
        return None
    vertical = axes.vertical or Scale.over(
        [*([0.0] if axes.zero else []), *(v for one in lines for v in (*one.low, *one.high))]
    )
    horizontal = _horizontal(at, lines)
    told = axes.ticks if axes.ticks is not None else horizontal.labels(6)
    labels = [(horizontal.share(tick), text) for tick, text in told]
    summary = _summary(lines, names, axes.say)
    children: list[Element] = [*value_axis(vertical), *below_axis(labels, axes.across)]
    if axes.zero:
        children.append(_rule(vertical))
    if axes.mark is not None and horizontal.low < axes.mark[0] < horizontal.high:
        children += _mark(horizontal.share(axes.mark[0]), axes.mark[1])
    drawn = [part for place, one in enumerate(lines) for part in _drawn(place, one, at, horizontal, vertical)]
    children.append(square(*drawn))
    outside = any(not 0 <= vertical.share(v) <= 1 for one in lines for v in one.mean if not np.isnan(v))
    more = "Some early rounds lie outside the picture." if outside else ""
    return Chart(
        title=title,
        summary=summary,
        drawing=drawing(f"{title}. {summary}", *children),
        readings=_readings(lines, at, names, horizontal, vertical, axes.say),
        numbers=_numbers(lines, names, axes),
        legend=[Entry(one.name, one.style) for one in lines if one.joined or len(lines) > 1],
        gutter=label_room([label for _, label in vertical.labels()], 12),
        note=" ".join(filter(None, (note, more))),
    )


@dataclass(frozen=True, eq=False)
class _Line:
    name: str
    style: Style
    mean: Floats
    low: Floats
    high: Floats
    several: bool
    level: bool
    across: Floats | None
    joined: bool

    @classmethod
    def of(cls, one: Series, kept: Sequence[int]) -> _Line:
        mean, low, high = one.spread()
        if one.level:
            mean, low, high = (np.full(len(kept), part[0]) for part in (mean, low, high))
        else:
            mean, low, high = mean[kept], low[kept], high[kept]
        across = None if one.across is None else one.across[kept]
        return cls(one.name, one.style, mean, low, high, len(one.values) > 1, one.level, across, one.joined)

    def say(self, place: int, say: Callable[[float], str]) -> str:
        if np.isnan(self.mean[place]):
            return "-"
        text = say(float(self.mean[place]))
        if not self.several or self.low[place] == self.high[place]:
            return text
        return f"{text} ({say(float(self.low[place]))} to {say(float(self.high[place]))})"


def _horizontal(at: Floats, lines: Sequence[_Line]) -> Scale:
    if any(one.across is not None for one in lines):
        found = [v for one in lines if one.across is not None for v in one.across if not np.isnan(v)]
        if not all(one.joined for one in lines):
            return Scale.over(found, below=0.05, above=0.05)
        return Scale.over([0.0, *found], below=0.0, above=0.04)
    whole = bool((at == at.round()).all())
    room = 0.5 if whole else 0.04 * (float(at[-1] - at[0]) or 1.0)
    return Scale(float(at[0]) - room, float(at[-1]) + room, whole=whole)


def _rule(vertical: Scale) -> Element:
    at = percent(1 - vertical.share(0.0))
    return element("line", x1="0", x2="100%", y1=at, y2=at, class_="zero")


def _mark(share: float, words: str) -> list[Element]:
    at = percent(share)
    end = share > 0.6
    return [
        element("line", x1=at, x2=at, y1="0", y2="100%", class_="mark"),
        element(
            "text",
            text=words,
            x=at,
            y="0",
            dx="-5" if end else "5",
            dy="0.9em",
            text_anchor="end" if end else "start",
            class_="axis",
        ),
    ]


def _drawn(place: int, one: _Line, at: Floats, horizontal: Scale, vertical: Scale) -> list[Element]:
    """The band, the line and the dots of a series, from number to number."""
    where = at if one.across is None else one.across
    found: list[Element] = []
    style = f"--c:{colour(one.style)}"
    told = np.flatnonzero(~np.isnan(one.mean) & ~np.isnan(where))

    def points(values: Floats) -> list[tuple[float, float]]:
        return [
            (horizontal.share(float(where[index])), 1 - vertical.share(float(values[index])))
            for index in told
        ]

    if one.several and not one.level and one.across is None and one.joined:
        band = area(points(one.high), points(one.low))
        found.append(element("path", d=band, class_="band", style=style, data_series=place))
    dashes = dash_lengths(one.style.line) or None
    means = points(one.mean)
    path = [(0.0, means[0][1]), (1.0, means[0][1])] if one.level else means
    if one.joined:
        found.append(
            element(
                "path", d=line(path), class_="line", style=style, stroke_dasharray=dashes, data_series=place
            )
        )
    if not one.level:
        dotted = means if len(told) < FEW or not one.joined else means[-1:]
        dots = "".join(f"{line([point])}h0" for point in dotted)
        found.append(element("path", d=dots, class_="dot", style=style, data_series=place))
    return found


def _readings(
    lines: Sequence[_Line],
    at: Floats,
    names: Sequence[str],
    horizontal: Scale,
    vertical: Scale,
    say: Callable[[float], str],
) -> dict[str, Any]:
    found = []
    for one in lines:
        where = at if one.across is None else one.across
        xs = [None if np.isnan(x) else round(SIDE * horizontal.share(float(x))) for x in where]
        shares = [1 - vertical.share(float(y)) for y in one.mean]
        ys = [round(SIDE * share) if 0 <= share <= 1 else None for share in shares]  # NaN is not
        texts = [one.say(place, say) for place in range(len(names))]
        found.append({"name": one.name, "x": xs, "y": ys, "text": texts})
    apart = any(one.across is not None for one in lines)
    if not apart:
        shared = found[0]["x"]
        return {
            "kind": "lines",
            "stops": list(names),
            "x": shared,
            "series": [{key: one[key] for key in ("name", "y", "text")} for one in found],
        }
    return {"kind": "lines", "stops": list(names), "series": found}


def _numbers(lines: Sequence[_Line], names: Sequence[str], axes: Axes) -> Cells:
    told = [place for place in range(len(names)) if any(not np.isnan(one.mean[place]) for one in lines)]
    told = [told[place] for place in thinned(len(told), MOST_ROWS)]
    begin = f"{axes.unit} "
    cells = [
        [names[place].removeprefix(begin), *(one.say(place, axes.say) for one in lines)] for place in told
    ]
    return [axes.unit, *(one.name for one in lines)], cells


def _summary(lines: Sequence[_Line], names: Sequence[str], say: Callable[[float], str]) -> str:
    """Says where each line begins and ends."""
    told = []
    for one in lines[:MOST_NAMED]:
        there = np.flatnonzero(~np.isnan(one.mean))
        first, last = int(there[0]), int(there[-1])
        begin, end = say(float(one.mean[first])), say(float(one.mean[last]))
        if one.level or first == last:
            told.append(f"{one.name}: {end}")
        else:
            told.append(f"{one.name}: {begin} at {names[first]}, {end} at {names[last]}")
    more = len(lines) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more else "") + "."
