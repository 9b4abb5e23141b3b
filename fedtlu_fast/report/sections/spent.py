"""The section of costs: bytes, operations and seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

import numpy as np

from fedtlu_fast.report.aggregate.costs import RunCosts, cost_cells, cost_rows, mean_path
from fedtlu_fast.report.aggregate.stages import STAGES
from fedtlu_fast.report.arms import arm_names, budget_of, budgets_of
from fedtlu_fast.report.charts.chart import Chart
from fedtlu_fast.report.charts.lines import Axes, Series, line_chart
from fedtlu_fast.report.charts.scale import Scale
from fedtlu_fast.report.columns import COLUMNS, Column
from fedtlu_fast.report.figures.style import Style
from fedtlu_fast.report.pages.content import Charts, Part, Section, Sheet
from fedtlu_fast.report.sections.curves import looks_of, say_of
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.tasks.metrics import Figure as Quality

COSTS = (COLUMNS["bytes_up"], COLUMNS["flops"])
"""The costs on the horizontal axes of charts."""
TOTALS = (COLUMNS["bytes_up"], COLUMNS["bytes_published"], COLUMNS["seconds"])


def spent_section(
    results: Sequence[ArmResult],
    quality: Quality,
    costs: Mapping[str, Sequence[RunCosts]],
    looks: Mapping[str, Style] | None = None,
) -> Section:
    """Returns the section of the costs of runs or arms.

    Args:
        results: the runs; the seconds by stage come from their timings, if they have any.
        quality: the headline, which charts show over the costs.
        costs: what arms have measured, by their names; may be empty.
        looks: the look of each arm, as in `cost_charts`.
    """
    parts: list[Part] = []
    charts = [] if not costs else cost_charts(costs, quality, looks)
    if charts:
        parts.append(Charts(charts))
    if costs:
        parts.append(Sheet.of("Costs of all rounds", cost_cells(cost_rows(costs))))
    elif len(arm_names(results)) == 1:  # the table of several arms has them
        parts.append(_totals(results))
    stages = stages_sheet(results)
    if stages is not None:
        parts.append(stages)
    lead = (
        "“Up” is what clients send, “published” the parameters that changed, counted once a round. Seconds "
        "are those of the rounds with their tests, without setup; they depend on the machine and its load."
    )
    return Section("costs", "Costs", parts, lead)


def cost_charts(
    costs: Mapping[str, Sequence[RunCosts]], quality: Quality, looks: Mapping[str, Style] | None = None
) -> list[Chart]:
    """Returns charts of the headline over the bytes sent and the FLOPs computed so far, for each budget.

    Args:
        costs: the runs of each arm, by its name.
        quality: the headline.
        looks: the look of each arm, all in one chart; None for `looks_of`, and charts for each budget.
    """
    names = list(costs)
    budgets = budgets_of(names) if looks is None else []
    shades, found = looks_of(names) if looks is None else looks, []
    vertical = _vertical(costs, quality)
    if vertical is None:
        return []
    panels: list[str | None] = [*budgets] or [None]
    for budget in panels:
        shown = {
            name: runs for name, runs in costs.items() if budget is None or budget_of(name) in (None, budget)
        }
        for cost in COSTS:
            paths = {name: _path(runs, cost, quality) for name, runs in shown.items()}
            stops = sorted({at for path in paths.values() for at in path})
            series = []
            for name, path in paths.items():
                values = np.array([[path.get(at, (np.nan, np.nan))[1] for at in stops]])
                across = np.array([path.get(at, (np.nan, np.nan))[0] for at in stops])
                series.append(Series(name, shades[name], values, across=across))
            head = f"{quality.label} over {cost.title}" + ("" if budget is None else f", budget {budget}")
            told = f"{cost.title} so far, all clients"
            axes = Axes(say=say_of(quality), across=told, vertical=vertical)
            chart = line_chart(head, stops, series, axes) if stops else None
            found += [] if chart is None else [chart]
    return found


def stages_sheet(results: Sequence[ArmResult]) -> Sheet | None:
    """Returns the table of the milliseconds of a round by stage; None without timings."""
    cells = []
    for name in arm_names(results):
        own = [result for result in results if result.selector == name]
        rows = [row for result in own for row in result.timings if row.keys() > {"round"}]
        if rows:
            stages = [1e3 * mean(row.get(stage, 0.0) for row in rows) for stage in (*STAGES, "evaluate")]
            cells.append([name, *(f"{stage:,.2f}" for stage in stages)])
    if not cells:
        return None
    return Sheet("Milliseconds of a round, by stage", ["", *STAGES, "evaluate"], cells)


def _totals(results: Sequence[ArmResult]) -> Sheet:
    cells = []
    for name in arm_names(results):
        own = [result.summary for result in results if result.selector == name]
        line = [name]
        for column in TOTALS:
            values = [summary[column.key] for summary in own if summary.get(column.key) is not None]
            line.append(column.cell(mean(values) if values else None))
        cells.append(line)
    return Sheet("Costs of all rounds", ["", *(column.head() for column in TOTALS)], cells)


def _path(runs: Sequence[RunCosts], cost: Column, quality: Quality) -> dict[int, tuple[float, float]]:
    """Returns the arm's `mean_path` in the units of the columns."""
    means = mean_path(runs, quality.column, cost.key)
    return {at: (cost.scale * spent, quality.scale * value) for at, (spent, value) in means.items()}


def _vertical(costs: Mapping[str, Sequence[RunCosts]], quality: Quality) -> Scale | None:
    """Returns an axis that shows the second half of all tests: the first fall would flatten the rest."""
    values = []
    for runs in costs.values():
        for run in runs:
            told = [value for _, _, value in run.path(quality.column, "bytes_up")]
            values += told[len(told) // 2 :]
    return Scale.over([quality.scale * value for value in values]) if values else None
