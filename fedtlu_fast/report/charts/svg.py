"""Elements of SVG: text and attributes are escaped, and no character in them acts on a page.

A chart's lines and areas are drawn in a square of `SIDE` by `SIDE` units that is stretched to the chart's
width and height, so that text keeps its size on every screen. Text and rules stand around it in per cent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, tostring

from markupsafe import Markup

from fedtlu_fast.shown import visible

SIDE = 1000
"""Units of a chart's width and height."""
Point = tuple[float, float]


def element(tag: str, *children: Element, text: str = "", **attributes: object) -> Element:
    """Makes an element.

    Args:
        tag: its name, such as ``path``.
        children: the elements inside.
        text: the text inside.
        attributes: by name, with ``_`` for ``-``; ``class_`` stands for ``class``. None is left out.
    """
    found = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            found.set(name.rstrip("_").replace("_", "-"), visible(str(value)))
    found.text = visible(text) if text else None
    found.extend(children)
    return found


def markup(found: Element) -> Markup:
    """The text of an element, which a template may show as it is: ElementTree has escaped what users name."""
    return Markup(tostring(found, encoding="unicode"))


def percent(share: float) -> str:
    """A place as a share of the chart's width or height, such as ``33.3%``."""
    return f"{100 * share:.4g}%"


def units(share: float) -> str:
    """A place in the stretched square."""
    return f"{SIDE * share:.1f}".removesuffix(".0")


def line(points: Sequence[Point]) -> str:
    """The path of a line through points, each a pair of shares; points are in drawing order."""
    return "".join(f"{'L' if place else 'M'}{units(x)} {units(y)}" for place, (x, y) in enumerate(points))


def area(upper: Sequence[Point], lower: Sequence[Point]) -> str:
    """The path of the area between two lines from left to right."""
    return f"{line([*upper, *reversed(lower)])}Z"


def boxes(found: Iterable[tuple[float, float, float, float]]) -> str:
    """The path of many rectangles, each by left, top, width and height as shares."""
    parts = []
    for left, top, width, height in found:
        w, h = units(width), units(height)
        parts.append(f"M{units(left)} {units(top)}h{w}v{h}h-{w}z")
    return "".join(parts)


def square(*children: Element) -> Element:
    """The square of `SIDE` by `SIDE` units that is stretched over the chart; what leaves it is cut off."""
    box = f"0 0 {SIDE} {SIDE}"
    return element(
        "svg",
        *children,
        width="100%",
        height="100%",
        viewBox=box,
        preserveAspectRatio="none",
        class_="square",
    )
