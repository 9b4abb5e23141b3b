"""Tables as text: for a terminal, in Markdown, and as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Sequence
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from fedtlu_fast.shown import visible

_NUMBER = re.compile(
    r"[-+]?[\d.,]+(e[-+]?\d+)?\s?%?( ± [\d.,e+-]+%?)?( \([-+]?[\d.,e]+%?)?( to [-+]?[\d.,e]+%?\)?)?$|-?$"
)
Cells = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Heads and cells of a table."""


def terminal_table(cells: Cells, title: str, *, left: Collection[str], break_at: str = "") -> Table:
    """Makes a table for a terminal.

    Args:
        cells: heads and cells.
        title: above it.
        left: heads of the columns that hold names, and not numbers.
        break_at: heads are broken after this text, once, and the table is drawn without a frame, so that
            many columns have room; empty for a table of few columns.
    """
    heads, lines = cells
    dense = bool(break_at)
    table = Table(title=title, title_justify="left")
    if dense:
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in heads:
        justify: Literal["left", "right"] = "left" if head in left else "right"
        shown = head.replace(break_at, f"{break_at.rstrip()}\n", 1) if dense else head
        table.add_column(shown, justify=justify, overflow="fold", vertical="bottom" if dense else "top")
    for line in lines:
        table.add_row(*line)
    return table


def numeric_columns(cells: Cells) -> list[bool]:
    """For each column, whether it holds only numbers and dashes; the first one names the rows."""
    heads, lines = cells
    return [
        place > 0 and bool(lines) and all(_NUMBER.match(line[place]) for line in lines)
        for place in range(len(heads))
    ]


def to_markdown(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Formats a table as Markdown."""
    lines = [heads, ["---"] * len(heads), *cells]
    return "".join(f"| {' | '.join(_in_markdown(cell) for cell in line)} |\n" for line in lines)


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Formats rows with the same keys as CSV, with all digits.

    A missing number is empty. A list is written with spaces between its values; keys with lists (the seeds)
    come first.
    """
    listed = [key for key in rows[0] if isinstance(rows[0][key], list)]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*listed, *(key for key in rows[0] if key not in listed)])
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, **{key: " ".join(map(str, row[key])) for key in listed}})
    return buffer.getvalue()


def _in_markdown(cell: str) -> str:
    return visible(cell).replace("|", "\\|")
