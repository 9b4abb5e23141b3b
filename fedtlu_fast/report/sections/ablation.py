"""Charts of a sweep over lambda: headline and agreement of the clients, by metric of the gains and budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedtlu_fast.report.charts.chart import Chart
from fedtlu_fast.report.charts.lines import Axes, Series, line_chart
from fedtlu_fast.report.columns import column_of
from fedtlu_fast.report.figures.style import PALETTE, Style
from fedtlu_fast.report.sections.curves import say_of
from fedtlu_fast.tasks.metrics import Figure

NOTE = "The values of lambda stand side by side, evenly spaced; bands are one standard deviation either way."


def ablation_charts(rows: Sequence[dict[str, Any]], quality: Figure) -> list[Chart]:
    """Returns two charts for each budget.

    Args:
        rows: the rows of `ablation_rows`.
        quality: the headline.
    """
    lams = sorted({row["lam"] for row in rows})
    agreement = column_of("agreement")
    found = []
    for budget in dict.fromkeys(row["budget"] for row in rows):
        own = [row for row in rows if row["budget"] == budget]
        for key, title, scale, say in (
            (quality.column, quality.label, quality.scale, say_of(quality)),
            (agreement.key, "agreement of the clients", 1.0, agreement.cell),
        ):
            axes = Axes(
                unit="lambda",
                across="lambda, in units of the round's mean gain",
                say=say,
                ticks=[(place, f"{lam:g}") for place, lam in enumerate(lams)],
                names=[f"lambda {lam:g}" for lam in lams],
            )
            series = [
                Series(
                    metric, Style(PALETTE[place % len(PALETTE)], "-"), _values(own, metric, key, lams, scale)
                )
                for place, metric in enumerate(dict.fromkeys(row["metric"] for row in rows))
            ]
            chart = line_chart(
                f"{title} by lambda, budget {budget}", range(len(lams)), series, axes, note=NOTE
            )
            found += [] if chart is None else [chart]
    return found


def _values(
    rows: Sequence[dict[str, Any]], metric: str, key: str, lams: Sequence[float], scale: float
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Returns [2, T]: mean minus and plus the standard deviation at each lambda."""
    found = np.full((2, len(lams)), np.nan)
    for row in rows:
        if row["metric"] == metric and row[key] is not None:
            spread = row[f"{key}_std"] or 0.0
            found[:, lams.index(row["lam"])] = scale * (row[key] - spread), scale * (row[key] + spread)
    return found
