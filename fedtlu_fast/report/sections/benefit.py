"""The chart of score against benefit: did rounds help more that updated blocks with higher scores?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedtlu_fast.report.aggregate.benefit import score_benefit
from fedtlu_fast.report.charts.chart import Chart
from fedtlu_fast.report.charts.lines import Axes, Series, line_chart
from fedtlu_fast.report.figures.style import COLOURS, Style
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.tasks.metrics import Figure

CLEAR = 0.05


def benefit_chart(results: Sequence[ArmResult], headline: Figure) -> Chart | None:
    """Returns the chart of the rounds in which blocks were drawn at random; None if there are too few.

    Args:
        results: runs of any selectors.
        headline: the figure of the global test.
    """
    found = score_benefit(results, headline)
    if found is None:
        return None
    order = np.argsort(found.standing, kind="stable")
    across, values = np.array(found.standing)[order], np.array(found.benefit)[order]
    names = [f"round {found.rounds[place]}" for place in order]
    series = Series("rounds", Style(COLOURS["random"], "-"), values[None], across=across, joined=False)
    clear = found.chance < CLEAR
    said = "more" if found.tau > 0 else "less"
    verdict = (
        f"rounds that updated higher-scored blocks helped {said}" if clear else "no connection can be told"
    )
    axes = Axes(
        unit="round",
        across="mean rank of the updated blocks by score (1: highest)",
        say="{:+z.2f}".format,
        zero=True,
        names=names,
    )
    chart = line_chart(
        "Score against benefit, where blocks were drawn at random", range(len(order)), [series], axes
    )
    if chart is None:
        return None
    told = (
        f"Kendall's tau {found.tau:+.2f} over {len(order)} rounds (p = {found.chance:.2g}): {verdict}. "
        "The benefit is by how many points of per cent the round improved the headline more "
        "than the rounds around it."
    )
    return chart.saying(told)
