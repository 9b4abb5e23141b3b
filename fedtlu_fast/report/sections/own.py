"""Charts of the columns that a report is asked for: lines where runs logged them, else dots."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from fedtlu_fast.report.arms import arm_names
from fedtlu_fast.report.charts.chart import Chart
from fedtlu_fast.report.charts.dots import Dot, dot_chart
from fedtlu_fast.report.columns import Column
from fedtlu_fast.report.own_columns import OwnColumns
from fedtlu_fast.report.sections.curves import logged_chart, looks_of, say_column
from fedtlu_fast.runs.results import ArmResult


def own_charts(results: Sequence[ArmResult], own: OwnColumns) -> list[Chart]:
    """Returns a chart for each column that has something to show.

    A single run's number of its end is in the table, and needs no chart.
    """
    found = []
    for column in own.columns:
        chart = logged_chart(column, results)
        if chart is None and len(results) > 1:
            chart = _dots(column, results, own)
        found += [] if chart is None else [chart]
    return found


def _dots(column: Column, results: Sequence[ArmResult], own: OwnColumns) -> Chart | None:
    names = arm_names(results)
    looks, dots = looks_of(names), []
    for name in names:
        found = [own.value(run, column.key) for run in results if run.selector == name]
        values = [column.scale * value for value in found if value is not None]
        if values:
            several = len(values) > 1
            dots.append(
                Dot(
                    name,
                    "",
                    looks[name],
                    mean(values),
                    min(values) if several else None,
                    max(values) if several else None,
                )
            )
    return dot_chart(
        column.label, dots, across=column.label, say=say_column(column), spread="range over seeds"
    )
