"""The border around every part of a report: what cannot be made costs that part alone, with one line.

The results were written before; a name that no font can show, or a run without rounds, must not hide them.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from textwrap import fill
from typing import Any, TypeVar

import matplotlib
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

from fedtlu_fast.errors import StorageError
from fedtlu_fast.report.tables import Cells
from fedtlu_fast.shown import one_line, visible

logger = logging.getLogger("fedtlu_fast")
T = TypeVar("T")
MOST_OF_NAME = 48
"""Characters of a name beside an axis or in a legend."""
BEGINS = (16, 0, 8, 24, 32, 40)
"""Of these, so many may be of the begin of a name that is longer; the first is taken if nothing speaks for
another."""

_style = threading.RLock()
"""matplotlib's settings and Python's filters of warnings are the process's; runs end in any thread."""


def attempt(part: str, make: Callable[[], T]) -> T | None:
    """What `make` gives; None where it cannot, which is then one line in the log.

    Args:
        part: what is made, for the line.
        make: makes it.

    Raises:
        StorageError: the disk is full, which is not this part's fault.
    """
    try:
        return make()
    except StorageError:
        raise
    except Exception as error:
        logger.warning(
            "%s could not be made, all else was: %s: %s", visible(part), type(error).__name__, one_line(error)
        )
        return None


def pictures(makers: Mapping[str, Callable[[], Figure]]) -> dict[str, bytes]:
    """PNG files by name; those that cannot be drawn are left out.

    Args:
        makers: makes the figure of each name.
    """
    drawn = {name: attempt(f"plots/{name}.png", partial(png, make)) for name, make in makers.items()}
    return {name: data for name, data in drawn.items() if data is not None}


def tables(makers: Mapping[str, Callable[[], Cells]]) -> list[dict[str, Any]]:
    """Tables of a page, without those that cannot be made or have no rows.

    Args:
        makers: makes heads and cells of the table of each title.
    """
    made = {title: attempt(f"the table “{title}”", make) for title, make in makers.items()}
    return [
        {"title": title, "heads": table[0], "cells": table[1]}
        for title, table in made.items()
        if table is not None and table[1]
    ]


def png(make: Callable[[], Figure]) -> bytes:
    """A figure as a PNG file's bytes, the same whatever the user's matplotlibrc says.

    Args:
        make: makes the figure. Names in it are shown as they are (a ``$`` begins no formula), but where they
            are so long that no room would be left for the picture.
    """
    with _style, matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing")  # a sign that the font lacks is drawn as a box
        # Too much text for a picture so small.
        warnings.filterwarnings("ignore", "constrained_layout not applied")
        matplotlib.rcdefaults()
        matplotlib.rcParams["text.parse_math"] = False
        figure = make()
        _show_names(figure)
        buffer = BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _show_names(figure: Figure) -> None:
    """Control characters and lone surrogates as escapes; a line's end is the figure's own. Long names get an
    ellipsis, long lines are broken."""
    entries = {}
    for legend in figure.findobj(Legend):
        begin = _begin([_lines(entry.get_text()) for entry in legend.get_texts()])
        entries.update(dict.fromkeys(legend.get_texts(), begin))
    for text in figure.findobj(Text):
        shown, size = _lines(text.get_text()), float(text.get_fontsize())
        text.set_text(_shortened(shown, entries[text]) if text in entries else _broken(shown, figure, size))
    for axis in figure.findobj(Axis):
        formatter = axis.get_major_formatter()
        if isinstance(formatter, FuncFormatter):  # labels that the figure gave
            begin = _begin([_lines(formatter.func(place, None)) for place in axis.get_majorticklocs()])
            formatter.func = partial(_label, formatter.func, begin)


def _lines(text: str) -> str:
    return "\n".join(map(visible, text.split("\n")))


def _label(named: Callable[..., str], begin: int, place: float, position: int | None = None) -> str:
    return _shortened(_lines(named(place, position)), begin)


def _begin(names: Sequence[str]) -> int:
    """How much of long names' begin to keep, so that most stay distinct, as by the number of a block."""
    return max(BEGINS, key=lambda begin: len({_shortened(name, begin) for name in names}))


def _shortened(name: str, begin: int) -> str:
    """A name of `MOST_OF_NAME` characters at most: its begin, and the end for the rest of them."""
    if len(name) <= MOST_OF_NAME:
        return name
    return f"{name[:begin]}…{name[begin + 1 - MOST_OF_NAME :]}"


def _broken(text: str, figure: Figure, size: float) -> str:
    """A text in lines that take four fifths of the figure's width, if letters are half as wide as high.

    No more, since a text may stand in the middle of axes that do not stand in the middle of the figure.
    """
    width = int(0.8 * figure.get_figwidth() * 72 / (0.5 * size))
    return "\n".join(fill(line, width) if len(line) > width else line for line in text.split("\n"))
