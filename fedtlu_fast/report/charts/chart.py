"""A chart as a page shows it: the drawing, its legend, and the readings along its stops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree.ElementTree import Element

from markupsafe import Markup

from fedtlu_fast.report.charts.scale import Scale
from fedtlu_fast.report.charts.svg import element, markup, percent
from fedtlu_fast.report.figures.style import Style, dash_lengths, on_dark
from fedtlu_fast.report.tables import Cells, numeric_columns


@dataclass(frozen=True)
class Entry:
    """An entry of a legend.

    Attributes:
        name: what it stands for.
        style: the look of its line.
    """

    name: str
    style: Style

    @property
    def colour(self) -> str:
        """Its colour in CSS, for light and dark pages."""
        return colour(self.style)

    @property
    def dashes(self) -> str:
        """Its dashes as SVG has them; empty for a solid line."""
        return dash_lengths(self.style.line)


@dataclass(frozen=True)
class Chart:
    """A drawing with everything that a page shows around it.

    Attributes:
        title: what it shows.
        summary: one or two sentences that say what the drawing says; for readers who do not see it too.
        drawing: the SVG.
        readings: what the page's script needs to show values: ``stops`` (their names), and for each series
            or row of a map its places and texts; see `lines` and `maps`.
        numbers: the table of the numbers that are drawn.
        legend: the entries of the legend.
        height: of the drawing, in CSS pixels.
        gutter: room for labels at the left, in characters.
        margin: likewise, at the right.
        note: what else has to be said below; empty for nothing.
    """

    title: str
    summary: str
    drawing: Markup
    readings: Mapping[str, Any]
    numbers: Cells
    legend: Sequence[Entry] = ()
    height: int = 260
    gutter: int = 6
    margin: int = 2
    note: str = ""
    template: str = field(default="chart.html.j2", init=False)

    def saying(self, words: str) -> Chart:
        """The same chart with these words below it too."""
        return replace(self, note=f"{words} {self.note}".strip())

    @property
    def numeric(self) -> list[bool]:
        """For each column of `numbers`, whether it holds only numbers."""
        return numeric_columns(self.numbers)


def colour(style: Style) -> str:
    """The colour of a style in CSS: one on light pages, one on dark pages."""
    return f"light-dark({style.colour}, {on_dark(style.colour)})"


def drawing(summary: str, *children: Element) -> Markup:
    """The SVG of a chart.

    Args:
        summary: what readers who do not see it are told.
        children: the elements.
    """
    return markup(
        element("svg", *children, role="img", aria_label=summary, xmlns="http://www.w3.org/2000/svg")
    )


def value_axis(scale: Scale) -> list[Element]:
    """The horizontal rules of a chart, and their labels at the left."""
    found = []
    for tick, label in scale.labels():
        at = percent(1 - scale.share(tick))
        found.append(element("line", x1="0", x2="100%", y1=at, y2=at, class_="rule"))
        found.append(
            element("text", text=label, x="0", y=at, dx="-6", dy="0.32em", text_anchor="end", class_="tick")
        )
    return found


def below_axis(labels: Sequence[tuple[float, str]], title: str = "") -> list[Element]:
    """The labels below a chart, each at its share of the width, and the title of the axis."""
    found = []
    for share, label in labels:
        at = percent(share)
        found.append(
            element("text", text=label, x=at, y="100%", dy="1.35em", text_anchor="middle", class_="tick")
        )
    if title:
        found.append(
            element("text", text=title, x="50%", y="100%", dy="2.75em", text_anchor="middle", class_="axis")
        )
    return found


def label_room(labels: Sequence[str], most: int = 22) -> int:
    """The characters that labels at the left need, at most `most`."""
    return min(most, max((len(label) for label in labels), default=0)) + 1


def shortened(name: str, most: int = 22) -> str:
    """A name in at most `most` characters: its beginning, an ellipsis, and its end, which differs most."""
    if len(name) <= most:
        return name
    begin = most // 4
    return f"{name[:begin]}…{name[begin + 1 - most :]}"
