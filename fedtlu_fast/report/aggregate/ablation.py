"""The effect of lambda in strategic selection: quality and agreement of the clients, by metric and budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np
from rich.table import Table

from fedtlu_fast.report.aggregate.client_choices import client_choices
from fedtlu_fast.report.arms import budget_of
from fedtlu_fast.report.columns import column_of
from fedtlu_fast.report.headline import headline_of_arms
from fedtlu_fast.report.tables import Cells, terminal_table
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.tasks.metrics import Figure


@dataclass(frozen=True, eq=False)
class SweepArm:
    """One run of a sweep over lambda.

    Attributes:
        metric: the metric of the gains: ``gradnorm``, ``rgn`` or ``snr``.
        budget: the clients' budget, as the arm's name has it.
        lam: lambda.
        result: what the run left. Its clients choose blocks.
    """

    metric: str
    budget: str
    lam: float
    result: ArmResult


def sweep_arms(results: Sequence[ArmResult]) -> list[SweepArm]:
    """Finds the arms of a sweep over lambda, such as ``strategic@2+lam=0.1+metric=snr``."""
    found = []
    for result in results:
        settings = dict(part.split("=", 1) for part in result.selector.split("+")[1:])
        if "lam" in settings:
            metric, budget = settings.get("metric", "gradnorm"), budget_of(result.selector) or ""
            found.append(SweepArm(metric, budget, float(settings["lam"]), result))
    return found


def ablation_rows(arms: Sequence[SweepArm]) -> list[dict[str, Any]]:
    """Returns a row for each metric, budget and lambda, with mean and sample standard deviation over seeds.

    Lambda ascends. ``agreement`` is the mean over a run's rounds of the clients' agreement
    (`client_choices.agreement`), in [0, 1]. The quality is the headline of the global test.
    """
    quality = headline_of_arms([arm.result for arm in arms]).column
    groups: dict[tuple[str, str], dict[float, list[ArmResult]]] = {}
    for arm in arms:
        groups.setdefault((arm.metric, arm.budget), {}).setdefault(arm.lam, []).append(arm.result)
    rows = []
    for (metric, budget), by_lam in groups.items():
        for lam, results in sorted(by_lam.items()):
            row: dict[str, Any] = {"metric": metric, "budget": budget, "lam": lam, "seeds": len(results)}
            reached = [result.summary.get(quality) for result in results]
            agreed = [_agreement(result) for result in results]
            for name, values in ((quality, reached), ("agreement", agreed)):
                known = [value for value in values if value is not None]
                row[name] = mean(known) if known else None
                row[f"{name}_std"] = stdev(known) if len(known) > 1 else None
            rows.append(row)
    return rows


def ablation_cells(rows: Sequence[dict[str, Any]], quality: Figure) -> Cells:
    """Returns heads and cells of the table, formatted, with the headline `quality`."""
    shown = [column_of(quality.column), column_of("agreement")]
    cells = [
        [
            row["metric"],
            row["budget"],
            f"{row['lam']:g}",
            *(one.cell(row[one.key], row[f"{one.key}_std"], narrow=True) for one in shown),
        ]
        for row in rows
    ]
    return ["metric", "budget", "lambda", *(column.head(narrow=True) for column in shown)], cells


def ablation_table(rows: Sequence[dict[str, Any]], title: str, quality: Figure) -> Table:
    """Returns the table for a terminal."""
    return terminal_table(ablation_cells(rows, quality), title, left=("metric", "budget"), break_at=", ")


def _agreement(result: ArmResult) -> float | None:
    """Returns the mean over rounds; None if no round had two clients that chose."""
    choices = client_choices(result)
    if choices is None or np.isnan(choices.agreement).all():
        return None
    return float(np.nanmean(choices.agreement))
