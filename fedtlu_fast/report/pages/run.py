"""The report of one run: pictures, and a page that holds them and the summary."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.report.aggregate.comparison import SOME
from fedtlu_fast.report.aggregate.history import kind_cells, score_history, stability_cells
from fedtlu_fast.report.columns import Column
from fedtlu_fast.report.figures.history import history_figure
from fedtlu_fast.report.figures.own_columns import OWN, OWN_TITLE, own_figures
from fedtlu_fast.report.figures.run import curves_figure, selection_figure
from fedtlu_fast.report.headline import headline_of
from fedtlu_fast.report.own_columns import OwnColumns
from fedtlu_fast.report.pages.page import write_page, write_pictures
from fedtlu_fast.report.pages.parts import attempt, pictures, tables
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.report.tables import Cells
from fedtlu_fast.runs.results import ArmResult

SHOWN_AS = {
    "selection": "Scores and choices",
    "ranks": "Ranks, and how much of them survives a round",
    OWN: OWN_TITLE,
}
"""Titles of the pictures, by the names of their files; the curves have the title of the headline."""

MOST_LABELS = 200
"""The largest number of labels in a table of the page."""


def write_run_report(
    run: ArmResult,
    layout: ParameterLayout,
    settings: RunSettings,
    out: Path,
    columns: Sequence[Column] = (),
) -> None:
    """Writes pictures and report.html of one run; a part that fails is left out, and the log says why.

    Args:
        run: the summary and the logs of the run.
        layout: the layout of its model.
        settings: the settings of the run.
        out: the run's directory.
        columns: columns that are asked for besides; see `asked_columns`.

    Raises:
        StorageError: they cannot be written.
    """
    attempt("report.html", lambda: _run_report(run, layout, settings, out, OwnColumns.of([run], columns)))


def _run_report(
    run: ArmResult, layout: ParameterLayout, settings: RunSettings, out: Path, own: OwnColumns
) -> None:
    summary = run.summary
    headline = headline_of(summary)
    blocks = [layout.blocks[block].name for group in layout.groups for block in group.blocks]
    unique = [layout.blocks[block].name for block in layout.unique]
    warmup = int(summary["warmup_rounds"])
    always = unique if settings.updates_unique else []
    figures: dict[str, Callable[[], Figure]] = {
        "curves": lambda: curves_figure(run.metrics, settings.shown_selector, warmup, headline),
        "selection": lambda: selection_figure(run.selection, blocks, warmup, always),
    }
    history = attempt(
        "the history of ranks",
        lambda: score_history(run.selection, layout, settings.made_selector(), settings.keep),
    )
    if history is not None and history.stability:
        groups = history.groups
        figures["ranks"] = lambda: history_figure(groups)
    drawn = pictures(figures | own_figures([run], own))
    write_pictures(out, drawn)
    f1 = summary.get("test_f1") or {}
    cells: dict[str, Callable[[], Cells]] = {
        "Summary": lambda: (["", "value"], _summary_cells(summary)),
        OWN_TITLE: lambda: (["", "value"], _own_cells(run, own)),
        "Global test, label by label": lambda: (
            ["label", "F1"],
            _label_cells(f1),
        ),
    }
    if history is not None:
        told = history
        cells["Ranks from round to round (see fedtlu history --help)"] = lambda: stability_cells(told)
        cells["Which layers decide a block's score"] = lambda: kind_cells(told)
    write_page(
        out,
        title=f"Federated run: {settings.shown_selector}, seed {settings.seed}",
        lead=f"{settings.lead}, {layout.size:,} parameters.",
        tables=tables(cells),
        pictures={SHOWN_AS.get(name, _first_upper(headline.title)): own for name, own in drawn.items()},
        settings=settings.text,
    )


def _summary_cells(summary: Mapping[str, Any]) -> list[list[str]]:
    some = (*SOME, "start_test_accuracy", "malicious_clients", "malicious_updates")
    left_out = {"groups", "test_f1", "environment", "data", "figures"}
    left_out.update(key for key in some if summary.get(key) is None)
    cells = [[key, _text(value)] for key, value in summary.items() if key not in left_out]
    # Which data were read as which part; runs of earlier versions did not record it.
    data = summary.get("data", {})
    titles = {"source": "data", "said": "data, what was read"}
    return [*cells, *([title, data[key]] for key, title in titles.items() if key in data)]


def _own_cells(run: ArmResult, own: OwnColumns) -> list[list[str]]:
    return [[column.head(), column.cell(own.value(run, column.key))] for column in own.columns]


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _label_cells(f1: Mapping[str, float]) -> list[list[str]]:
    """Returns a line for each label; labels beyond `MOST_LABELS` share one line."""
    shown = [[label, f"{score:.4f}"] for label, score in list(f1.items())[:MOST_LABELS]]
    rest = len(f1) - len(shown)
    return [*shown, [f"{rest:,} more in summary.json", ""]] if rest else shown


def _text(value: Any) -> str:
    """Formats a value of the summary: text as it is, numbers readably, and everything else as JSON."""
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4f}".rstrip("0").rstrip(".")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
