"""The report of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedtlu_fast.data.holdings import Holdings
from fedtlu_fast.report.aggregate.clients import client_rows
from fedtlu_fast.report.aggregate.comparison import comparison_cells, comparison_rows
from fedtlu_fast.report.arms import chooses
from fedtlu_fast.report.conclusion import conclusion
from fedtlu_fast.report.figures.comparison import comparison_figure
from fedtlu_fast.report.figures.own_columns import own_figures
from fedtlu_fast.report.own_columns import NO_COLUMNS, OwnColumns
from fedtlu_fast.report.pages.arms import ArmsReport, arms_page
from fedtlu_fast.report.pages.clients import write_client_report
from fedtlu_fast.report.pages.content import Sheet
from fedtlu_fast.report.pages.page import write_page, write_pictures
from fedtlu_fast.report.pages.parts import attempt, pictures
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.report.tables import to_csv, to_markdown
from fedtlu_fast.runs.directory import RunDirectory
from fedtlu_fast.runs.results import ArmResult, save_comparison
from fedtlu_fast.shown import visible
from fedtlu_fast.wording import seeds_text


def write_comparison_report(
    results: Sequence[ArmResult],
    settings: RunSettings,
    out: Path,
    own: OwnColumns = NO_COLUMNS,
    holdings: Holdings | None = None,
) -> list[dict[str, Any]]:
    """Writes comparison.json, table.md, table.csv, pictures and report.html; returns the rows of the table.

    For arms in which clients choose see `write_client_report`. A part that cannot be made is left out, and
    the log says why; if that is the table, no rows are returned.

    Args:
        results: the arms with all seeds.
        settings: the settings that the arms share.
        out: the comparison's directory.
        own: columns that are asked for besides; see `OwnColumns.of`.
        holdings: what the clients hold with the first seed; None leaves that out of the page.

    Raises:
        StorageError: they cannot be written.
    """
    make = client_rows if any(map(chooses, results)) else comparison_rows
    rows = attempt("the table of arms", lambda: make(results, own)) or []
    said = attempt("the sentence below the table", lambda: conclusion(results)) or ""
    save_comparison(out, rows, results, said)
    if rows:
        write = write_client_report if make is client_rows else _comparison_report
        attempt("report.html", lambda: write(results, rows, said, settings, out, own, holdings))
    return rows


def _comparison_report(
    results: Sequence[ArmResult],
    rows: Sequence[dict[str, Any]],
    said: str,
    settings: RunSettings,
    out: Path,
    own: OwnColumns,
    holdings: Holdings | None,
) -> None:
    heads, cells = comparison_cells(rows, own)
    directory = RunDirectory(out)
    told = f"{settings.rounds_text}, {seeds_text(len(rows[0]['seeds']))}"
    directory.write("table.md", f"{told}\n\n{to_markdown(heads, cells)}\n{visible(said)}\n")
    directory.write("table.csv", to_csv(rows))
    blocks = [block for group in results[0].summary["groups"].values() for block in group]
    figures = {"comparison": lambda: comparison_figure(results, blocks, said), **own_figures(results, own)}
    drawn = pictures(figures)
    write_pictures(out, drawn)
    title = "Which layers to update: " + ", ".join(row["selector"] for row in rows)
    table = Sheet("Comparison", heads, cells)
    write_page(out, arms_page(ArmsReport(title, results, table, settings, out, own, holdings=holdings)))
