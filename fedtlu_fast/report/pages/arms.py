"""The page of a comparison, of any arms: who won, curves, which blocks were updated, costs and the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedtlu_fast.data.holdings import Holdings
from fedtlu_fast.report.aggregate.client_choices import arms_choices
from fedtlu_fast.report.aggregate.costs import RunCosts
from fedtlu_fast.report.aggregate.curves import Choices, Curve, agreement_curves, quality_curves
from fedtlu_fast.report.arms import arm_names, budget_of, budgets_of, is_reference
from fedtlu_fast.report.charts.chart import Chart
from fedtlu_fast.report.charts.lines import Axes, line_chart
from fedtlu_fast.report.charts.scale import Scale
from fedtlu_fast.report.conclusion import conclusion
from fedtlu_fast.report.headline import headline_of_arms
from fedtlu_fast.report.own_columns import NO_COLUMNS, OwnColumns
from fedtlu_fast.report.pages.content import Charts, Page, Part, Section, Sheet
from fedtlu_fast.report.pages.parts import attempt, charts, sections
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.report.sections.benefit import benefit_chart
from fedtlu_fast.report.sections.curves import gains_chart, looks_of, quality_charts, series_of, spread_words
from fedtlu_fast.report.sections.environment import environment_section
from fedtlu_fast.report.sections.faults import faults_section
from fedtlu_fast.report.sections.holdings import holdings_section
from fedtlu_fast.report.sections.own import own_charts
from fedtlu_fast.report.sections.privacy import privacy_notes
from fedtlu_fast.report.sections.repeat import repeat_comparison
from fedtlu_fast.report.sections.spent import spent_section
from fedtlu_fast.report.sections.took_part import took_part_section
from fedtlu_fast.report.sections.updated import client_maps, shares_sheet, updated_maps
from fedtlu_fast.runs.results import ArmResult

AGREEMENT = "The Jaccard index of two clients' sets of blocks, mean over the pairs of a round's clients."


@dataclass(frozen=True)
class ArmsReport:
    """What the page of a comparison is made of.

    Attributes:
        title: its title.
        results: the arms with all seeds.
        table: the table of arms.
        settings: the settings that the arms share.
        out: the comparison's directory.
        own: columns that are asked for besides.
        costs: what arms have measured, by their names; empty for nothing.
        more: further tables and charts of the section of results.
        holdings: what the clients hold with the first seed; None leaves that out.
    """

    title: str
    results: Sequence[ArmResult]
    table: Sheet
    settings: RunSettings
    out: Path
    own: OwnColumns = NO_COLUMNS
    costs: Mapping[str, Sequence[RunCosts]] = field(default_factory=dict)
    more: Sequence[Part] = ()
    holdings: Holdings | None = None


def arms_page(report: ArmsReport) -> Page:
    """Returns the page of a comparison; a section that cannot be made is left out, and the log says why."""
    results, settings, holdings = report.results, report.settings, report.holdings
    quality = headline_of_arms(results)
    seeds = sorted({result.seed for result in results})
    run = next((r for r in results if not is_reference(r)), results[0])
    return Page(
        kind="Comparison",
        title=report.title,
        sentence=attempt("the sentence on top", lambda: conclusion(results)) or "",
        lead=f"{settings.lead}; mean ± standard deviation over {len(seeds)} seed{'s' * (len(seeds) > 1)}.",
        sections=sections(
            {
                "Result": lambda: _result(report),
                "Blocks": lambda: blocks_section(results),
                **({} if holdings is None else {"Who held what": lambda: holdings_section(holdings)}),
                "Who took part": lambda: took_part_section(
                    run, settings, report.out, data_shown=holdings is not None
                ),
                "Costs": lambda: spent_section(results, quality, report.costs),
                "Faults": lambda: faults_section(results),
                "Environment": lambda: environment_section(results),
                "How to repeat it": lambda: repeat_comparison(
                    settings, report.out, arm_names(results), seeds
                ),
            }
        ),
    )


def result_charts(results: Sequence[ArmResult], own: OwnColumns = NO_COLUMNS) -> list[Charts]:
    """Returns the charts of the headline, of the gains over random, and of columns that are asked for."""
    quality = headline_of_arms(results)
    warmup = warmup_of(results)
    return charts(
        {
            "curves": lambda: quality_charts(
                curves_of(results),
                quality,
                title=f"Global test, {spread_words(results)}",
                warmup=warmup,
            ),
            "gains": lambda: gains_chart(results, quality, warmup),
            "columns": lambda: own_charts(results, own),
        }
    )


def curves_of(results: Sequence[ArmResult]) -> dict[str, Curve]:
    """Returns the curves of the headline; arms without targeted rounds are levels, unless all are such."""
    quality = headline_of_arms(results)
    if any(not is_reference(result) for result in results):
        return quality_curves(results, quality)
    found = {}
    for result in results:
        told = [(row["round"], row[quality.column]) for row in result.metrics]
        runs = [(at, quality.scale * value) for at, value in told if value is not None]
        if runs and result.selector not in found:
            found[result.selector] = Curve(
                [at for at, _ in runs], np.array([[value for _, value in runs]], np.float64)
            )
    return found


def warmup_of(results: Sequence[ArmResult]) -> int:
    """Returns the number of rounds of the warm-up; 0 if there are no others."""
    found = [int(r.summary["warmup_rounds"]) for r in results if not is_reference(r)]
    return max(found, default=0)


def blocks_section(results: Sequence[ArmResult]) -> Section:
    """Returns the section of the blocks that arms updated, and of those that clients chose."""
    arms = [result for result in results if not is_reference(result)]
    groups: dict[str, list[str]] = next((result.summary["groups"] for result in arms), {})
    blocks = [block for group in groups.values() for block in group]
    warmup, quality = warmup_of(results), headline_of_arms(results)
    choices = attempt("the maps of choices", lambda: arms_choices(arms)) or {}
    told = [result for result in arms if result.selector not in choices] if choices else arms
    parts: list[Part] = list(
        charts(
            {
                "updated blocks": lambda: updated_maps(told, blocks, warmup) if blocks else None,
                "clients' choices": lambda: client_maps(choices),
                "agreement": lambda: _agreement(choices, warmup),
                "score and benefit": lambda: benefit_chart(arms, quality),
            }
        )
    )
    shares = attempt("the table of shares", lambda: shares_sheet(told, blocks, warmup)) if told else None
    lead = "" if blocks or choices else "This model has no like blocks to choose among."
    many = len({result.seed for result in arms}) > 1
    if blocks and told:
        lead = "Dark where a block was updated" + (", the darker in the more seeds" if many else "")
        lead += "; the input is at the top. At the right: the share of the rounds that updated the block."
    return Section(
        "blocks", "Which blocks were updated when", [*parts, *([] if shares is None else [shares])], lead
    )


def _agreement(choices: Choices, warmup: int) -> list[Chart]:
    """Returns a chart for each budget, one if no arm has a budget."""
    curves = agreement_curves(choices)
    looks, found = looks_of(list(curves)), []
    panels: list[str | None] = [*budgets_of(curves)] or [None]
    axes = Axes(say="{:.2f}".format, vertical=Scale(-0.02, 1.04), first=warmup + 1)
    for budget in panels:
        told = {name: curve for name, curve in curves.items() if budget_of(name) in (None, budget)}
        stops, series = series_of(told, looks)
        head = "How far clients agree" + ("" if budget is None else f", budget {budget}")
        chart = line_chart(head, stops, series, axes, note=AGREEMENT) if told else None
        found += [] if chart is None else [chart]
    return found


def _result(report: ArmsReport) -> Section:
    parts: list[Part] = [report.table, *result_charts(report.results, report.own), *report.more]
    return Section("result", "Result", [*privacy_notes(report.results), *parts])
