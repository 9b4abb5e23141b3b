"""The report of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fedtlu_fast.report.aggregate.experiment import HEADS, experiment_cells, experiment_rows
from fedtlu_fast.report.aggregate.stages import HEADS as STAGE_HEADS
from fedtlu_fast.report.aggregate.stages import scoring_sentence, stage_cells, stage_rows
from fedtlu_fast.report.arms import arm_names
from fedtlu_fast.report.charts.chart import Chart
from fedtlu_fast.report.charts.dots import Dot, dot_chart
from fedtlu_fast.report.figures.gains import SPLITS, gains_figure
from fedtlu_fast.report.figures.style import Style, colours
from fedtlu_fast.report.headline import headline_of_arms
from fedtlu_fast.report.own_columns import NO_COLUMNS, OwnColumns
from fedtlu_fast.report.pages.arms import curves_of, warmup_of
from fedtlu_fast.report.pages.comparison import write_comparison_report
from fedtlu_fast.report.pages.content import Charts, Links, Page, Part, Section, Sheet
from fedtlu_fast.report.pages.page import PAGE, write_page, write_pictures
from fedtlu_fast.report.pages.parts import attempt, charts, pictures, sections
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.report.sections.curves import quality_charts, spread_words
from fedtlu_fast.report.sections.environment import environment_section
from fedtlu_fast.report.sections.faults import faults_section
from fedtlu_fast.report.sections.repeat import repeat_experiment
from fedtlu_fast.report.tables import to_csv, to_markdown
from fedtlu_fast.report.verdict import experiment_sentence
from fedtlu_fast.runs.directory import CONFIG, RunDirectory
from fedtlu_fast.runs.results import ArmResult, ConditionResult
from fedtlu_fast.shown import shell_word


def write_experiment_report(
    name: str,
    results: Sequence[ConditionResult],
    out: Path,
    own: OwnColumns = NO_COLUMNS,
    model: str | None = None,
) -> list[dict[str, Any]]:
    """Writes tables, a picture of the gains, report.html, and the report of every condition.

    The tables are table.csv, table.md and seconds.csv.

    Args:
        name: the name of the experiment, such as ``ptb-transformer``.
        results: all conditions; the directory of each has its name.
        out: the experiment's directory.
        own: columns that are asked for besides; see `OwnColumns.of`.
        model: what the table calls the model; None: as the name of the experiment says.

    Raises:
        StorageError: they cannot be written.
    """
    rows = attempt("the experiment's table", lambda: experiment_rows(name, results, own)) or []
    if model is not None:
        rows = [{**row, "model": model} for row in rows]
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
    timed = attempt("the table of seconds", lambda: stage_rows(results))
    if timed:
        directory.write("seconds.csv", to_csv(timed))
        title, lines = _timed_title(timed), stage_cells(timed)
        told += f"\n{title}\n\n{to_markdown(STAGE_HEADS, lines)}"
    directory.write("table.md", told)
    gained = any(row["gain_over_random_pct"] is not None for row in rows)
    write_pictures(out, pictures({"gains": lambda: gains_figure(rows)} if gained else {}))
    write_page(out, experiment_page(name, results, rows, out, own))


def experiment_page(
    name: str,
    results: Sequence[ConditionResult],
    rows: Sequence[dict[str, Any]],
    out: Path,
    own: OwnColumns = NO_COLUMNS,
) -> Page:
    """Returns the page of an experiment; a section that cannot be made is left out, and the log says why.

    Args:
        name: the name of the experiment.
        results: all conditions.
        rows: the rows of `experiment_rows`.
        out: the experiment's directory.
        own: columns that are asked for besides.
    """
    settings = RunSettings.read(out / results[0].name)
    arms = [named(result.name, arm) for result in results for arm in result.arms]
    return Page(
        kind="Experiment",
        title=f"Experiment: {name}",
        sentence=attempt("the sentence on top", lambda: experiment_sentence(rows)) or "",
        lead=f"{settings.lead}, data {settings.source}; {len(results)} conditions.",
        sections=sections(
            {
                "Result": lambda: _result(rows, own),
                "Curves": lambda: _curves(results),
                "Conditions": lambda: _conditions(results),
                "Costs": lambda: _costs(results),
                "Faults": lambda: faults_section(arms),
                "Environment": lambda: environment_section(arms),
                "How to repeat it": lambda: _repeat(name, settings, results, out),
            }
        ),
    )


def named(condition: str, arm: ArmResult) -> ArmResult:
    """Returns an arm under its condition's name too, as tables of several conditions call it."""
    return replace(arm, selector=f"{condition}/{arm.selector}")


def _result(rows: Sequence[dict[str, Any]], own: OwnColumns) -> Section:
    parts: list[Part] = list(charts({"gains": lambda: gain_charts(rows)}))
    table = Sheet("All measures", HEADS, experiment_cells(rows, own))
    return Section("result", "Result", [*parts, table])


def gain_charts(rows: Sequence[dict[str, Any]]) -> list[Chart]:
    """Returns a chart of the gains with their 95% intervals for each test of the first metric."""
    told = [row for row in rows if row["gain_over_random_pct"] is not None and row["split"] in SPLITS]
    told = [row for row in told if row["metric"] == told[0]["metric"]]
    shades = colours(list(dict.fromkeys(row["selector"] for row in told)))
    found = []
    for split, words in SPLITS.items():
        dots = [
            Dot(
                f"{row['aggregator']}, {row['threat']}",
                row["selector"],
                Style(shades[row["selector"]], "-"),
                row["gain_over_random_pct"],
                row["ci_low"],
                row["ci_high"],
            )
            for row in told
            if row["split"] == split
        ]
        title = f"Gain over random updates, {told[0]['metric']} of the {words}" if told else ""
        chart = dot_chart(
            title, dots, across="gain over random, %", say="{:+z.2f}".format, spread="95% interval", zero=True
        )
        found += [] if chart is None else [chart]
    return found


def _curves(results: Sequence[ConditionResult]) -> Section:
    shown: list[Chart] = []
    for result in results:
        quality, warmup = headline_of_arms(result.arms), warmup_of(result.arms)
        shown += quality_charts(curves_of(result.arms), quality, title=result.name, warmup=warmup)
    lead = f"Global test of every condition, {spread_words(results[0].arms)}."
    return Section("curves", "Curves", [Charts(shown)] if shown else [], lead)


def _conditions(results: Sequence[ConditionResult]) -> Section:
    links = [(f"{result.aggregator}, {result.threat}", f"{quote(result.name)}/{PAGE}") for result in results]
    lead = "Each condition has a page of its own, with maps of the updated blocks."
    return Section("conditions", "Conditions", [Links(links)], lead)


def _costs(results: Sequence[ConditionResult]) -> Section:
    timed = stage_rows(results)
    lines = stage_cells(timed) if timed else []
    sheet = Sheet("Milliseconds of a round, by stage", STAGE_HEADS, lines, scoring_sentence(timed))
    return Section("costs", "Costs", [sheet] if lines else [])


def _repeat(name: str, settings: RunSettings, results: Sequence[ConditionResult], out: Path) -> Section:
    arms = results[0].arms
    seeds = sorted({arm.seed for arm in arms})
    names = ",".join(arm_names(arms))
    commands = [
        (
            f"The condition {result.aggregator}, {result.threat}",
            f"fedtlu compare --config {shell_word(out / result.name / CONFIG)} \\\n"
            f"  --selectors {shell_word(names)} --seed {seeds[0]} --seeds {len(seeds)}",
        )
        for result in results
    ]
    return repeat_experiment(settings, commands)


def _timed_title(timed: Sequence[dict[str, Any]]) -> str:
    return f"Milliseconds of a round, by stage. {scoring_sentence(timed)}"
