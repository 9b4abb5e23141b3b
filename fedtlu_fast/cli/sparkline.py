"""Curves of one line of text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int, span: tuple[float, float] | None = None) -> str:
    """Draws a curve.

    Args:
        values: the numbers, in order.
        width: the largest number of characters; of more numbers, neighbours are averaged.
        span: the numbers that the lowest and the highest bar stand for; None: the least and the largest one.
    """
    shown = _averaged(values, width)
    if not shown:
        return ""
    low, high = span or (min(shown), max(shown))
    steps = len(BARS) - 1
    heights = (round(steps * (value - low) / (high - low)) if high > low else 0 for value in shown)
    return "".join(BARS[min(steps, max(0, height))] for height in heights)


def _averaged(values: Sequence[float], width: int) -> list[float]:
    if len(values) <= width:
        return list(values)
    edges = [round(index * len(values) / width) for index in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
