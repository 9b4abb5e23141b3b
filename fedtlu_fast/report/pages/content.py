"""What a page consists of: sections with tables, charts, facts, commands and notes. It draws nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fedtlu_fast.report.charts.chart import Chart
from fedtlu_fast.report.tables import Cells, numeric_columns


@dataclass(frozen=True)
class Sheet:
    """A table; its first column names the rows.

    Attributes:
        title: above it, and the name by which screen readers find it.
        heads: of the columns.
        cells: the rows.
        note: below the title; empty for nothing.
        folded: whether it is shown only when the reader opens it.
    """

    title: str
    heads: Sequence[str]
    cells: Sequence[Sequence[str]]
    note: str = ""
    folded: bool = False
    template: str = field(default="sheet.html.j2", init=False)

    @classmethod
    def of(cls, title: str, table: Cells, note: str = "", folded: bool = False) -> Sheet:
        """The sheet of a table's heads and cells."""
        return cls(title, table[0], table[1], note, folded)

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether it holds only numbers and dashes, which stand at the right."""
        return numeric_columns((self.heads, self.cells))


@dataclass(frozen=True)
class Facts:
    """Figures that are read first, each with its name."""

    pairs: Sequence[tuple[str, str]]
    template: str = field(default="facts.html.j2", init=False)


@dataclass(frozen=True)
class Charts:
    """Charts that stand side by side where there is room."""

    charts: Sequence[Chart]
    template: str = field(default="charts.html.j2", init=False)


@dataclass(frozen=True)
class Command:
    """A text to copy.

    Attributes:
        title: what it does.
        text: the command, or another text.
        folded: whether it is shown only when the reader opens it.
    """

    title: str
    text: str
    folded: bool = False
    template: str = field(default="command.html.j2", init=False)


@dataclass(frozen=True)
class Notes:
    """Sentences, one below the other.

    Attributes:
        lines: the sentences.
        warning: whether they warn.
    """

    lines: Sequence[str]
    warning: bool = False
    template: str = field(default="notes.html.j2", init=False)


@dataclass(frozen=True)
class Links:
    """Links to pages that lie in folders beside this one.

    Attributes:
        links: for each its words and its path, relative to the page.
    """

    links: Sequence[tuple[str, str]]
    template: str = field(default="links.html.j2", init=False)


Part = Sheet | Facts | Charts | Command | Notes | Links


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading.

    Attributes:
        name: its anchor: letters and hyphens.
        title: its heading.
        parts: what it shows; a section without any is left out.
        lead: the sentence below the heading; empty for none.
    """

    name: str
    title: str
    parts: Sequence[Part]
    lead: str = ""


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        kind: what it reports, such as ``Comparison``.
        title: its title.
        sentence: what came out.
        lead: what was run, in one line.
        sections: in their order.
    """

    kind: str
    title: str
    sentence: str
    lead: str
    sections: Sequence[Section]
