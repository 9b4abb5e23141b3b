"""Charts of numbers over rounds: of arms, their gains over random, and of columns that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite

import numpy as np

from fedtlu_fast.report.aggregate.curves import Curve
from fedtlu_fast.report.arms import BASELINE, arm_names, budget_of, budgets_of
from fedtlu_fast.report.charts.chart import Chart
from fedtlu_fast.report.charts.lines import Axes, Series, line_chart
from fedtlu_fast.report.charts.scale import Scale
from fedtlu_fast.report.columns import Column, column_of
from fedtlu_fast.report.figures.arm_curves import coincident
from fedtlu_fast.report.figures.style import Style, colours, styles
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.tasks.metrics import Figure as Quality

TARGETING = "targeting starts"


def looks_of(names: Sequence[str]) -> dict[str, Style]:
    """Returns the look of each arm's lines, as in the pictures."""
    if budgets_of(names):
        return styles(names)
    return {name: Style(shade, "-") for name, shade in colours(names).items()}


def say_of(quality: Quality) -> Callable[[float], str]:
    """Returns a function that writes numbers of a headline, given in the units that charts show."""
    form = column_of(quality.column).form
    unit = "%" if quality.percent else ""
    return lambda value: f"{value:{form}}{unit}"


def spread_words(results: Sequence[ArmResult]) -> str:
    """Says what lines and bands are: ``mean of 5 seeds, with their range``."""
    count = len({result.seed for result in results})
    return "one seed" if count == 1 else f"mean of {count} seeds, with their range"


def quality_charts(
    curves: Mapping[str, Curve],
    quality: Quality,
    *,
    title: str,
    warmup: int,
    looks: Mapping[str, Style] | None = None,
    whole: bool = False,
) -> list[Chart]:
    """Returns a chart of the headline for each budget, one if no arm has a budget.

    Args:
        curves: the curves of arms, by their names; see `quality_curves`.
        quality: the headline.
        title: what the charts show.
        warmup: the last round of the warm-up, in which all arms are the same; 0 for none.
        looks: the look of each arm, all in one chart; None for `looks_of`, and a chart for each budget.
        whole: whether the warm-up is shown too; its last round is shown in any case.
    """
    names = list(curves)
    shown = looks_of(names) if looks is None else looks
    late = [
        value
        for curve in curves.values()
        for place, value in _numbers(curve)
        if place is None or place > warmup
    ]
    axes = Axes(
        say=say_of(quality),
        vertical=Scale.over(late) if any(map(isfinite, late)) else None,
        first=None if whole else warmup or None,
        mark=(warmup + 0.5, TARGETING) if warmup else None,
    )
    found = []
    budgets = budgets_of(names) if looks is None else []
    panels: list[str | None] = [*budgets] or [None]
    for budget in panels:
        told = {name: curves[name] for name in names if budget is None or budget_of(name) in (None, budget)}
        stops, series = series_of(told, shown)
        head = f"{title}: {quality.label}" if budget is None else f"{title}, budget {budget}"
        alike = [", ".join(same) for same in coincident(told, (warmup if not whole else 0) + 1)]
        note = "".join(f"Lines that coincide: {same}. " for same in alike)
        chart = line_chart(head, stops, series, axes, note=note.strip())
        found += [] if chart is None else [chart]
    return found


def gains_chart(
    results: Sequence[ArmResult], quality: Quality, warmup: int, title: str = "Gain over random"
) -> Chart | None:
    """Returns the chart of how much better the headline is than random's, seed by seed, in per cent.

    Args:
        results: the arms, with any seeds.
        quality: the headline.
        warmup: the last round of the warm-up; 0 for none.
        title: what the chart shows.
    """
    names = arm_names(results)
    looks = looks_of(names)
    baseline = {result.seed: _tests(result, quality) for result in results if result.selector == BASELINE}
    curves: dict[str, Curve] = {}
    for name in names:
        own = [r for r in results if r.selector == name and r.seed in baseline]
        if name == BASELINE or not own:
            continue
        tested = [_tests(result, quality) for result in own]
        rounds = sorted({at for run in tested for at in run if at > warmup})
        values = np.full((len(own), len(rounds)), np.nan)
        for row, (run, result) in enumerate(zip(tested, own, strict=True)):
            for place, at in enumerate(rounds):
                base = baseline[result.seed].get(at)
                if at in run and base:
                    sign = 1 if quality.better == "higher" else -1
                    values[row, place] = 100 * sign * (run[at] - base) / abs(base)
        if rounds and not np.isnan(values).all():
            curves[name] = Curve(rounds, values)
    if not curves:
        return None
    stops, series = series_of(curves, looks)
    axes = Axes(say="{:+z.2f}%".format, zero=True)
    note = f"By how much the {quality.title} is better than random's with the same seed; 0 is random's."
    return line_chart(title, stops, series, axes, note=note)


def series_of(curves: Mapping[str, Curve], looks: Mapping[str, Style]) -> tuple[list[int], list[Series]]:
    """Returns the rounds of all curves, and each curve at these rounds."""
    stops = sorted({int(at) for curve in curves.values() for at in curve.rounds}) or [0]
    found = []
    for name, curve in curves.items():
        if not len(curve.rounds):
            found.append(Series(name, looks[name], curve.values, level=True))
            continue
        values = np.full((len(curve.values), len(stops)), np.nan)
        values[:, np.searchsorted(stops, curve.rounds)] = curve.values
        found.append(Series(name, looks[name], values))
    return stops, found


def logged_chart(column: Column, results: Sequence[ArmResult]) -> Chart | None:
    """Returns the chart of a number that runs logged in more than one round; None if there are fewer.

    Args:
        column: the column; its key is the number's name in metrics.jsonl.
        results: the runs.
    """
    key = column.key
    rounds = sorted({row["round"] for run in results for row in run.metrics if row.get(key) is not None})
    if len(rounds) < 2 or column.figure is not None:
        return None
    curves = {}
    for name in arm_names(results):
        own = [result for result in results if result.selector == name]
        runs = [{row["round"]: row.get(key) for row in result.metrics} for result in own]
        values = np.array([[run.get(at) for at in rounds] for run in runs], np.float64)
        curves[name] = Curve(rounds, column.scale * values)
    stops, series = series_of(curves, looks_of(list(curves)))
    return line_chart(f"{column.label}, round by round", stops, series, Axes(say=say_column(column)))


def say_column(column: Column) -> Callable[[float], str]:
    """Returns a function that writes numbers of a column, given in the units that charts show."""
    return lambda value: column.cell(value / column.scale)


def _tests(result: ArmResult, quality: Quality) -> dict[int, float]:
    return {
        row["round"]: row[quality.column] for row in result.metrics if row.get(quality.column) is not None
    }


def _numbers(curve: Curve) -> list[tuple[int | None, float]]:
    """Returns every number of a curve with its round; None for a level."""
    rounds = [None] if not len(curve.rounds) else [int(at) for at in curve.rounds]
    return [(at, float(value)) for row in curve.values for at, value in zip(rounds, row, strict=True)]
