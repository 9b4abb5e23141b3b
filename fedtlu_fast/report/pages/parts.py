"""Makes every part of a report separately: if one fails, only that part is missing, and the log says why.

The results are written before the report. A name that no font can show, or a run without rounds, must not
hide them.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from textwrap import fill
from typing import TypeVar

import matplotlib
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

from fedtlu_fast.errors import StorageError
from fedtlu_fast.report.charts.chart import Chart
from fedtlu_fast.report.pages.content import Charts, Section, Sheet
from fedtlu_fast.report.tables import Cells
from fedtlu_fast.shown import one_line, visible

logger = logging.getLogger("fedtlu_fast")
T = TypeVar("T")
MOST_OF_NAME = 48
"""The number of characters of a name beside an axis or in a legend."""
BEGINS = (16, 0, 8, 24, 32, 40)
"""How many of these characters may come from the beginning of a longer name; see `_begin`. The first number
is taken if none keeps more names distinct."""

_style = threading.RLock()
"""A lock, since matplotlib's settings and Python's filters of warnings belong to the process, and runs may
end in several threads."""


def attempt(part: str, make: Callable[[], T]) -> T | None:
    """Returns what `make` returns; None if it raises, and then the log says why.

    Args:
        part: the name of the part, for the log.
        make: makes the part.

    Raises:
        StorageError: the disk is full, so that other parts cannot be written either.
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
    """Draws PNG files, by name; a picture that cannot be drawn is left out.

    Args:
        makers: for each name the function that makes its figure.
    """
    drawn = {name: attempt(f"plots/{name}.png", partial(png, make)) for name, make in makers.items()}
    return {name: data for name, data in drawn.items() if data is not None}


def sheets(makers: Mapping[str, Callable[[], Cells]], *, folded: bool = False) -> list[Sheet]:
    """Makes the tables of a page; a table that cannot be made or has no rows is left out.

    Args:
        makers: for each title the function that makes heads and cells of its table.
        folded: whether a table is shown only when the reader opens it.
    """
    made = {title: attempt(f"the table “{title}”", make) for title, make in makers.items()}
    return [
        Sheet.of(title, table, folded=folded)
        for title, table in made.items()
        if table is not None and table[1]
    ]


def charts(makers: Mapping[str, Callable[[], Chart | Sequence[Chart] | None]]) -> list[Charts]:
    """Makes charts that stand side by side; a chart that cannot be made or shows nothing is left out.

    Args:
        makers: for each name, for the log, the function that makes one chart, several or none.
    """
    made = [attempt(f"the chart “{name}”", make) for name, make in makers.items()]
    found = [one for part in made if part for one in ([part] if isinstance(part, Chart) else part)]
    return [Charts(found)] if found else []


def sections(makers: Mapping[str, Callable[[], Section]]) -> list[Section]:
    """Makes the sections of a page; a section that cannot be made or shows nothing is left out.

    Args:
        makers: for each section's title the function that makes it.
    """
    made = [attempt(f"the section “{title}”", make) for title, make in makers.items()]
    return [section for section in made if section is not None and section.parts]


def png(make: Callable[[], Figure]) -> bytes:
    """Draws a figure as the bytes of a PNG file, independent of the user's matplotlibrc.

    Args:
        make: makes the figure. Names in it are shown literally (a ``$`` begins no formula); a name that would
            leave no room for the picture is shortened.
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
    """Shows control characters and lone surrogates as escapes, shortens long names, and breaks long lines.

    Line ends are kept, as the figure has put them there.
    """
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
    """Returns how many characters of the beginning of long names to keep, so that most stay distinct."""
    return max(BEGINS, key=lambda begin: len({_shortened(name, begin) for name in names}))


def _shortened(name: str, begin: int) -> str:
    """Shortens a name to `MOST_OF_NAME` characters: its first `begin` ones, an ellipsis, and its end."""
    if len(name) <= MOST_OF_NAME:
        return name
    return f"{name[:begin]}…{name[begin + 1 - MOST_OF_NAME :]}"


def _broken(text: str, figure: Figure, size: float) -> str:
    """Breaks a text into lines of four fifths of the figure's width, if letters are half as wide as high.

    Wider lines could be cut off, since axes need not stand in the middle of the figure.
    """
    width = int(0.8 * figure.get_figwidth() * 72 / (0.5 * size))
    return "\n".join(fill(line, width) if len(line) > width else line for line in text.split("\n"))
