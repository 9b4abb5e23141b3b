"""Dots on a line for each name, with bars for their spread: gains with intervals, or figures of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedtlu_fast.report.charts.chart import (
    Chart,
    Entry,
    below_axis,
    colour,
    drawing,
    label_room,
    shortened,
)
from fedtlu_fast.report.charts.scale import Scale
from fedtlu_fast.report.charts.svg import SIDE, element, percent
from fedtlu_fast.report.figures.style import Style

ROW = 20
LOWEST = 90


@dataclass(frozen=True)
class Dot:
    """One number of a row.

    Attributes:
        row: the name of its row.
        series: what the legend calls its colour.
        style: its look.
        value: where the dot stands.
        low: where its bar begins; None for no bar.
        high: where its bar ends.
    """

    row: str
    series: str
    style: Style
    value: float
    low: float | None = None
    high: float | None = None


def dot_chart(
    title: str,
    dots: Sequence[Dot],
    *,
    across: str,
    say: Callable[[float], str],
    spread: str,
    zero: bool = False,
    note: str = "",
) -> Chart | None:
    """Draws the dots, a row for each name and within it a line for each series; None if there is none.

    Args:
        title: what the chart shows.
        dots: the numbers.
        across: the title of the horizontal axis.
        say: writes a number.
        spread: the head of the table's column of bars, such as ``95% interval``.
        zero: whether a rule marks zero.
        note: what else has to be said.
    """
    if not dots:
        return None
    rows = list(dict.fromkeys(dot.row for dot in dots))
    kinds = list(dict.fromkeys(dot.series for dot in dots))
    ends = [end for dot in dots for end in (dot.value, dot.low, dot.high) if end is not None]
    scale = Scale.over([*ends, *([0.0] if zero else [])], below=0.06, above=0.06)
    lanes = len(kinds) + 1 if len(kinds) > 1 else 1
    height = max(LOWEST, ROW * len(rows) * (1 if len(kinds) == 1 else max(1, lanes // 2)))
    children = []
    for tick in scale.ticks():
        at = percent(scale.share(tick))
        children.append(element("line", x1=at, x2=at, y1="0", y2="100%", class_="rule"))
    if zero:
        at = percent(scale.share(0.0))
        children.append(element("line", x1=at, x2=at, y1="0", y2="100%", class_="zero"))
    children += below_axis([(scale.share(tick), label) for tick, label in scale.labels()], across)
    for place, row in enumerate(rows):
        at = percent((place + 0.5) / len(rows))
        children.append(
            element(
                "text",
                text=shortened(row),
                x="0",
                y=at,
                dx="-6",
                dy="0.32em",
                text_anchor="end",
                class_="tick",
            )
        )
    places = []
    for dot in dots:
        down = (rows.index(dot.row) + (kinds.index(dot.series) + 1) / (len(kinds) + 1)) / len(rows)
        places.append((scale.share(dot.value), down))
        tint, y = f"--c:{colour(dot.style)}", percent(down)
        number = kinds.index(dot.series)
        if dot.low is not None and dot.high is not None:
            ends_at = percent(scale.share(dot.low)), percent(scale.share(dot.high))
            children.append(
                element(
                    "line",
                    x1=ends_at[0],
                    x2=ends_at[1],
                    y1=y,
                    y2=y,
                    class_="bar",
                    style=tint,
                    data_series=number,
                )
            )
        children.append(
            element(
                "circle",
                cx=percent(scale.share(dot.value)),
                cy=y,
                r="4.5",
                class_="spot",
                style=tint,
                data_series=number,
            )
        )
    texts = [_text(dot, say) for dot in dots]
    looks = {dot.series: dot.style for dot in dots}
    summary = "; ".join(
        f"{_named(dot, kinds)}: {text}" for dot, text in zip(dots[:8], texts, strict=False)
    ) + ("." if len(dots) <= 8 else f"; and {len(dots) - 8} more.")
    return Chart(
        title=title,
        summary=summary,
        drawing=drawing(f"{title}. {summary}", *children),
        readings={
            "kind": "dots",
            "stops": [_named(dot, kinds) for dot in dots],
            "x": [round(SIDE * x) for x, _ in places],
            "y": [round(SIDE * y) for _, y in places],
            "text": texts,
        },
        numbers=(
            ["", *(["arm"] if len(kinds) > 1 else []), across, spread],
            [
                [
                    dot.row,
                    *([dot.series] if len(kinds) > 1 else []),
                    say(dot.value),
                    "-" if dot.low is None or dot.high is None else f"{say(dot.low)} to {say(dot.high)}",
                ]
                for dot in dots
            ],
        ),
        legend=[Entry(kind, looks[kind]) for kind in kinds] if len(kinds) > 1 else [],
        height=height,
        gutter=label_room([shortened(row) for row in rows]),
        note=note,
    )


def _named(dot: Dot, kinds: Sequence[str]) -> str:
    return f"{dot.row}, {dot.series}" if len(kinds) > 1 else dot.row


def _text(dot: Dot, say: Callable[[float], str]) -> str:
    if dot.low is None or dot.high is None:
        return say(dot.value)
    return f"{say(dot.value)} ({say(dot.low)} to {say(dot.high)})"
