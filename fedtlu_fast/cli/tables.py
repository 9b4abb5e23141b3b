"""Prints tables; it never changes names or breaks numbers, and omits columns if the terminal is narrow."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from fedtlu_fast.cli.console import results
from fedtlu_fast.shown import visible

NARROWEST = 12
"""Least width in characters of a text column, as long as a column of numbers can be left out instead."""


def show(table: Table, elsewhere: str, least: Sequence[str] = (), console: Console = results) -> None:
    """Prints a table, leaves out columns that do not fit, and names them.

    Args:
        table: a table of plain text, without markup. Right-justified columns hold numbers.
        elsewhere: where to find the columns that are left out, such as "use --json".
        least: heads of the columns to leave out first, in this order, of numbers or text; the last columns of
            numbers follow.
        console: the console to print to.
    """
    for title in ("title", "caption"):
        text = getattr(table, title)
        if text is not None:
            setattr(table, title, _plain(str(text), "table." + title))
    out = []
    while (column := _to_leave_out(table, least)) is not None and _width(table) > console.width:
        table.columns.remove(column)
        out.append(_one_line(column))
    for index, column in enumerate(table.columns):
        column._index = index
        if _is_number(column):
            column.no_wrap = True
            column.header = _folded(column)
        column.header = _plain(str(column.header))
        column._cells = [_plain(str(cell)) for cell in column._cells]
    console.print(table)
    if out:
        # In quotes, because heads may contain commas.
        names = ", ".join(f"“{name}”" for name in out)
        text = f"These columns do not fit in {console.width} characters: {names} ({elsewhere})."
        console.print(Text(text), soft_wrap=True)


def _to_leave_out(table: Table, least: Sequence[str]) -> Column | None:
    numbers = [column for column in table.columns if _is_number(column)]
    named = {_one_line(column): column for column in table.columns}
    last = numbers[-1] if len(numbers) > 1 else None
    return next((named[head] for head in least if head in named and named[head] is not numbers[0]), last)


def _is_number(column: Column) -> bool:
    return column.justify == "right"


def _one_line(column: Column) -> str:
    return " ".join(str(column.header).split())


def _plain(text: str, style: str = "") -> Text:
    return Text("\n".join(map(visible, text.split("\n"))), style=style)


def _width(table: Table) -> int:
    """Returns the least width of the table, with the heads of number columns wrapped between words."""
    beside = 3 if table.box is not None and table.show_edge and table.padding[1] else 2
    return 1 + sum(beside + _least(column) for column in table.columns)


def _least(column: Column) -> int:
    longest = max((cell_len(str(cell)) for cell in column._cells), default=0)
    words = max(map(cell_len, str(column.header).split()), default=0)
    least = max(longest, words)
    return least if _is_number(column) or column.no_wrap else min(least, NARROWEST)


def _folded(column: Column) -> str:
    return "\n".join(textwrap.wrap(_one_line(column), _least(column), break_long_words=False)) or ""
