"""The report of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedtlu_fast.report.aggregate.experiment import HEADS, experiment_cells, experiment_rows
from fedtlu_fast.report.aggregate.stages import HEADS as STAGE_HEADS
from fedtlu_fast.report.aggregate.stages import scoring_sentence, stage_cells, stage_rows
from fedtlu_fast.report.figures.gains import gains_figure
from fedtlu_fast.report.own_columns import NO_COLUMNS, OwnColumns
from fedtlu_fast.report.pages.comparison import write_comparison_report
from fedtlu_fast.report.pages.page import write_page, write_pictures
from fedtlu_fast.report.pages.parts import attempt, pictures
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.report.tables import to_csv, to_markdown
from fedtlu_fast.runs.directory import RunDirectory
from fedtlu_fast.runs.results import ConditionResult

GAINS = "Gain over random updates"


def write_experiment_report(
    name: str, results: Sequence[ConditionResult], out: Path, own: OwnColumns = NO_COLUMNS
) -> list[dict[str, Any]]:
    """Writes tables, a picture of the gains, report.html, and the report of every condition.

    The tables are table.csv, table.md and seconds.csv.

    Args:
        name: the name of the experiment, such as ``ptb-transformer``.
        results: all conditions; the directory of each has its name.
        out: the experiment's directory.
        own: columns that are asked for besides; see `OwnColumns.of`.

    Raises:
        StorageError: they cannot be written.
    """
    rows = attempt("the experiment's table", lambda: experiment_rows(name, results, own)) or []
    for result in results:
        folder = out / result.name
        write_comparison_report(result.arms, RunSettings.read(folder), folder, own)
    if rows:
        RunDirectory(out).write("table.csv", to_csv(rows))
        attempt("report.html", lambda: _experiment_report(name, results, rows, out, own))
    return rows


def _experiment_report(
    name: str,
    results: Sequence[ConditionResult],
    rows: Sequence[dict[str, Any]],
    out: Path,
    own: OwnColumns,
) -> None:
    cells = experiment_cells(rows, own)
    directory = RunDirectory(out)
    told = to_markdown(HEADS, cells)
    written: list[dict[str, Any]] = [{"title": "All measures", "heads": HEADS, "cells": cells}]
    timed = attempt("the table of seconds", lambda: stage_rows(results))
    if timed:
        directory.write("seconds.csv", to_csv(timed))
        title, lines = f"Milliseconds of a round, by stage. {scoring_sentence(timed)}", stage_cells(timed)
        told += f"\n{title}\n\n{to_markdown(STAGE_HEADS, lines)}"
        written.append({"title": title, "heads": STAGE_HEADS, "cells": lines})
    directory.write("table.md", told)
    gained = any(row["gain_over_random_pct"] is not None for row in rows)
    drawn = pictures({"gains": lambda: gains_figure(rows)} if gained else {})
    write_pictures(out, drawn)
    settings = RunSettings.read(out / results[0].name)
    folders = ", ".join(result.name for result in results)
    write_page(
        out,
        title=f"Experiment: {name}",
        lead=f"{settings.lead}, data {settings.source}; the curves and maps of choices are in {folders}. "
        f"The settings below are those of {results[0].name}.",
        tables=written,
        pictures={GAINS: drawn["gains"]} if "gains" in drawn else {},
        settings=settings.text,
    )
