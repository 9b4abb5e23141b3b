"""The report of one run: pictures, and a page that says what came out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fedtlu_fast.data.holdings import Holdings
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.report.aggregate.client_choices import arms_choices
from fedtlu_fast.report.aggregate.costs import read_costs
from fedtlu_fast.report.aggregate.curves import Curve
from fedtlu_fast.report.aggregate.history import (
    ScoreHistory,
    kind_cells,
    score_history,
    stability_cells,
)
from fedtlu_fast.report.charts.chart import Chart
from fedtlu_fast.report.columns import Column
from fedtlu_fast.report.figures.history import history_figure
from fedtlu_fast.report.figures.own_columns import OWN_TITLE, own_figures
from fedtlu_fast.report.figures.run import curves_figure, selection_figure
from fedtlu_fast.report.figures.style import INK, Style
from fedtlu_fast.report.headline import headline_of
from fedtlu_fast.report.own_columns import OwnColumns
from fedtlu_fast.report.pages.content import Facts, Page, Part, Section
from fedtlu_fast.report.pages.page import write_page, write_pictures
from fedtlu_fast.report.pages.parts import attempt, charts, pictures, sections, sheets
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.report.sections.block_benefit import TITLE as BENEFIT_TITLE
from fedtlu_fast.report.sections.block_benefit import block_benefit_section
from fedtlu_fast.report.sections.curves import looks_of, quality_charts
from fedtlu_fast.report.sections.environment import environment_section
from fedtlu_fast.report.sections.faults import faults_section
from fedtlu_fast.report.sections.holdings import holdings_section
from fedtlu_fast.report.sections.own import own_charts
from fedtlu_fast.report.sections.privacy import privacy_notes
from fedtlu_fast.report.sections.repeat import repeat_run
from fedtlu_fast.report.sections.spent import spent_section
from fedtlu_fast.report.sections.summary import LOCAL, facts, label_cells, own_cells, summary_cells
from fedtlu_fast.report.sections.took_part import took_part_section
from fedtlu_fast.report.sections.updated import client_maps, ranking_chart, scores_map
from fedtlu_fast.report.verdict import run_sentence
from fedtlu_fast.runs.directory import COSTS
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.tasks.metrics import Figure as Quality


def write_run_report(
    run: ArmResult,
    layout: ParameterLayout,
    settings: RunSettings,
    out: Path,
    columns: Sequence[Column] = (),
    holdings: Holdings | None = None,
) -> None:
    """Writes pictures and report.html of one run; a part that fails is left out, and the log says why.

    Args:
        run: the summary and the logs of the run.
        layout: the layout of its model.
        settings: the settings of the run.
        out: the run's directory.
        columns: columns that are asked for besides; see `asked_columns`.
        holdings: what the clients hold; None leaves that out of the page.

    Raises:
        StorageError: they cannot be written.
    """
    own = OwnColumns.of([run], columns)
    attempt("report.html", lambda: _run_report(run, layout, settings, out, own, holdings))


def _run_report(
    run: ArmResult,
    layout: ParameterLayout,
    settings: RunSettings,
    out: Path,
    own: OwnColumns,
    holdings: Holdings | None,
) -> None:
    history = run_history(run, layout, settings)
    figures = run_figures(run, layout, settings, history)
    write_pictures(out, pictures(figures | own_figures([run], own)))
    write_page(out, run_page(run, layout, settings, out, history, own, holdings))


def page_of_run(
    run: ArmResult,
    layout: ParameterLayout,
    settings: RunSettings,
    place: Path,
    columns: Sequence[Column] = (),
    holdings: Holdings | None = None,
) -> Page:
    """Returns the page of one run alone; the arguments are those of `write_run_report`."""
    own = OwnColumns.of([run], columns)
    return run_page(run, layout, settings, place, run_history(run, layout, settings), own, holdings)


def run_history(run: ArmResult, layout: ParameterLayout, settings: RunSettings) -> ScoreHistory | None:
    """Returns the history of a run's ranks; None if it cannot be made, and then the log says why."""
    return attempt(
        "the history of ranks",
        lambda: score_history(run.selection, layout, settings.made_selector(), settings.keep),
    )


def run_figures(
    run: ArmResult, layout: ParameterLayout, settings: RunSettings, history: ScoreHistory | None
) -> dict[str, Callable[[], Figure]]:
    """Returns functions that draw the pictures of one run, by the names of their files."""
    headline, warmup = headline_of(run.summary), int(run.summary["warmup_rounds"])
    always = [layout.blocks[block].name for block in layout.unique] if settings.updates_unique else []
    figures: dict[str, Callable[[], Figure]] = {
        "curves": lambda: curves_figure(run.metrics, settings.shown_selector, warmup, headline),
        "selection": lambda: selection_figure(run.selection, _blocks(layout), warmup, always),
    }
    if history is not None and history.stability:
        groups = history.groups
        figures["ranks"] = lambda: history_figure(groups)
    return figures


def run_page(
    run: ArmResult,
    layout: ParameterLayout,
    settings: RunSettings,
    out: Path,
    history: ScoreHistory | None,
    own: OwnColumns,
    holdings: Holdings | None = None,
) -> Page:
    """Returns the page of one run.

    Args:
        run: the summary and the logs of the run.
        layout: the layout of its model.
        settings: the settings of the run.
        out: the run's directory.
        history: the history of its ranks; None if there is none.
        own: columns that are asked for besides.
        holdings: what the clients hold; None leaves that out.
    """
    headline = headline_of(run.summary)
    held = os.path.lexists(out / COSTS)
    costs = attempt("the costs", lambda: read_costs({run.selector: [out]})) if held else None
    return Page(
        kind="Federated run",
        title=f"Federated run{settings.quoted_name}: {settings.shown_selector}, seed {settings.seed}",
        sentence=attempt("the sentence on top", lambda: run_sentence(run)) or "",
        lead=f"{settings.lead}, {layout.size:,} parameters.",
        sections=sections(
            {
                "Result": lambda: _result(run, settings, own),
                "Blocks": lambda: _blocks_section(run, layout, history),
                BENEFIT_TITLE: lambda: block_benefit_section(run, layout, settings),
                **({} if holdings is None else {"Who held what": lambda: holdings_section(holdings)}),
                "Who took part": lambda: took_part_section(
                    run, settings, out, data_shown=holdings is not None
                ),
                "Costs": lambda: spent_section([run], headline, costs or {}),
                "Faults": lambda: faults_section([run]),
                "Environment": lambda: environment_section([run]),
                "How to repeat it": lambda: repeat_run(settings, out),
            }
        ),
    )


def _result(run: ArmResult, settings: RunSettings, own: OwnColumns) -> Section:
    summary, headline = run.summary, headline_of(run.summary)
    f1 = summary.get("test_f1") or {}
    drawn = charts(
        {
            "curves": lambda: _curves(run, settings, headline),
            "columns": lambda: own_charts([run], own),
        }
    )
    shown = sheets(
        {
            OWN_TITLE: lambda: (["", "value"], own_cells(run, own)),
            "Global test, label by label": lambda: (["label", "F1"], label_cells(f1)),
        }
    )
    all_of_it = sheets(
        {"Everything in the summary": lambda: (["", "value"], summary_cells(summary))}, folded=True
    )
    read_first = attempt("the facts", lambda: Facts(facts(summary, headline)))
    first: list[Part] = [] if read_first is None else [read_first]
    return Section("result", "Result", [*privacy_notes([run]), *first, *drawn, *shown, *all_of_it])


def _curves(run: ArmResult, settings: RunSettings, headline: Quality) -> list[Chart]:
    name, warmup = settings.shown_selector, int(run.summary["warmup_rounds"])
    told = [(int(row["round"]), row[headline.column]) for row in run.metrics]
    curves = _tested("global test", headline, told)
    told = [(int(row["round"]), row.get(f"local_{headline.name}")) for row in run.metrics]
    curves |= _tested(LOCAL, headline, told)
    late = warmup if warmup < int(run.summary["rounds"]) else 0
    looks = {"global test": looks_of([name])[name], LOCAL: Style(INK, "--")}
    return quality_charts(curves, headline, title="Tests over rounds", warmup=late, looks=looks, whole=True)


def _tested(name: str, headline: Quality, told: Sequence[tuple[int, float | None]]) -> dict[str, Curve]:
    """Returns the curve of the rounds with a test, by its name; nothing without any."""
    found = [(at, headline.scale * value) for at, value in told if value is not None]
    rounds, values = [at for at, _ in found], [value for _, value in found]
    return {name: Curve(rounds, np.array([values], np.float64))} if found else {}


def _blocks_section(run: ArmResult, layout: ParameterLayout, history: ScoreHistory | None) -> Section:
    warmup = int(run.summary["warmup_rounds"])
    groups = [] if history is None else history.groups
    parts: list[Part] = list(
        charts(
            {
                "scores and choices": lambda: scores_map(run.selection, _blocks(layout), warmup),
                "clients' choices": lambda: client_maps(arms_choices([run])),
                "ranks": lambda: ranking_chart(groups),
            }
        )
    )
    if history is not None:
        told = history
        parts += sheets(
            {
                "Ranks from round to round (see fedtlu history --help)": lambda: stability_cells(told),
                "Which layers decide a block's score": lambda: kind_cells(told),
            },
            folded=True,
        )
    unique = [layout.blocks[block].name for block in layout.unique]
    lead = ""
    if unique and parts:
        more = f" and {len(unique) - 4} more" if len(unique) > 4 else ""
        lead = f"Blocks without like blocks, among which nothing is chosen: {', '.join(unique[:4])}{more}."
    return Section("blocks", "Which blocks were updated when", parts, lead)


def _blocks(layout: ParameterLayout) -> list[str]:
    return [layout.blocks[block].name for group in layout.groups for block in group.blocks]
