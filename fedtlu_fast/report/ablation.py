"""What lambda buys: quality and agreement of the clients against lambda, for each metric and budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fedtlu_fast.experiments.compare import ArmResult
from fedtlu_fast.report.arms import BASELINE_COLOUR, PALETTE, budget_of
from fedtlu_fast.report.client_choices import client_choices
from fedtlu_fast.report.client_tables import quality_of
from fedtlu_fast.report.costs_plot import LABELS
from fedtlu_fast.report.plots import FAINT, INK
from fedtlu_fast.report.tables import to_csv_rows, to_markdown
from fedtlu_fast.runs.directory import RunDirectory

HEADS = {"test_accuracy": "global acc, %", "test_perplexity": "global ppl"}
COLOURS = (BASELINE_COLOUR, *PALETTE)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GAP = 0.75
"""Decades between the smallest positive lambda and the place of 0."""


@dataclass(frozen=True, eq=False)
class SweepArm:
    """One run of a sweep.

    Attributes:
        metric: what the gains are: ``gradnorm``, ``rgn``, ``snr``.
        budget: as in the arm's name.
        lam: lambda.
        result: what the run left; its clients choose.
    """

    metric: str
    budget: str
    lam: float
    result: ArmResult


def sweep_arms(results: Sequence[ArmResult]) -> list[SweepArm]:
    """The arms that are part of a sweep over lambda: ``strategic@2+lam=0.1+metric=snr``."""
    found = []
    for result in results:
        settings = dict(part.split("=", 1) for part in result.selector.split("+")[1:])
        if "lam" in settings:
            metric, budget = settings.get("metric", "gradnorm"), budget_of(result.selector) or ""
            found.append(SweepArm(metric, budget, float(settings["lam"]), result))
    return found


def ablation_rows(arms: Sequence[SweepArm]) -> list[dict[str, Any]]:
    """One row for each metric, budget and lambda, in ascending lambda: mean and sample standard deviation.

    ``agreement`` is a run's mean over its rounds of the clients' agreement (`client_choices.agreement`).
    The quality is ``test_accuracy`` where the task has it, else ``test_perplexity``.
    """
    quality = quality_of([arm.result for arm in arms])
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


def ablation_cells(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the table as people read it."""
    quality = _quality(rows)
    cells = [
        [
            row["metric"],
            row["budget"],
            f"{row['lam']:g}",
            _cell(row[quality], row[f"{quality}_std"], LABELS[quality][1], ".2f"),
            _cell(row["agreement"], row["agreement_std"], 1, ".3f"),
        ]
        for row in rows
    ]
    return ["metric", "budget", "lambda", HEADS[quality], "agreement"], cells


def ablation_table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """The table for a terminal."""
    heads, cells = ablation_cells(rows)
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in heads:
        justify: Literal["left", "right"] = "left" if head in ("metric", "budget") else "right"
        table.add_column(head, justify=justify)
    for line in cells:
        table.add_row(*line)
    return table


def ablation_figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Quality and agreement over lambda on a logarithmic axis, 0 at its left; a column for each budget.

    Points are means over seeds, bars one standard deviation either way.

    Args:
        rows: see `ablation_rows`; one or more.
    """
    quality = _quality(rows)
    budgets, metrics = (list(dict.fromkeys(row[key] for row in rows)) for key in ("budget", "metric"))
    figure = Figure(figsize=(1.6 + max(5.0, 3.2 * len(budgets)), 5.6), dpi=130, layout="constrained")
    panels = figure.subplots(2, len(budgets), sharex=True, sharey="row", squeeze=False)
    places = _places(sorted({row["lam"] for row in rows}))
    for column, budget in zip(panels.T, budgets, strict=True):
        column[0].set_title(f"budget {budget}", fontsize=9, loc="left")
        for axes, (name, scale) in zip(
            column, ((quality, LABELS[quality][1]), ("agreement", 1)), strict=True
        ):
            for place, metric in enumerate(metrics):
                own = [row for row in rows if (row["metric"], row["budget"]) == (metric, budget)]
                _line(axes, own, name, scale, places, place, metric)
            _dress(axes, places)
    panels[0, 0].set_ylabel(LABELS[quality][0], fontsize=9)
    panels[1, 0].set_ylabel("agreement", fontsize=9)
    panels[1, 0].set_ylim(-0.02, 1.04)
    figure.supxlabel("lambda, in units of the round's mean gain", fontsize=9)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    for axes in panels[0, 1:]:
        more = zip(*axes.get_legend_handles_labels(), strict=True)
        fresh = [(handle, label) for handle, label in more if label not in labels]
        handles += [handle for handle, _ in fresh]
        labels += [label for _, label in fresh]
    figure.legend(
        handles, labels, frameon=False, fontsize=8, loc="outside right upper", title="gain", title_fontsize=8
    )
    return figure


def write_ablation(arms: Sequence[SweepArm], out: Path) -> list[dict[str, Any]]:
    """ablation.csv and ablation.md; returns the table's rows.

    Raises:
        StorageError: they cannot be written.
    """
    rows = ablation_rows(arms)
    directory = RunDirectory(out)
    directory.write("ablation.csv", to_csv_rows(rows))
    directory.write("ablation.md", to_markdown(*ablation_cells(rows)))
    return rows


def _agreement(result: ArmResult) -> float | None:
    """Mean over rounds; None where no round had two clients that chose."""
    choices = client_choices(result)
    if choices is None or np.isnan(choices.agreement).all():
        return None
    return float(np.nanmean(choices.agreement))


def _quality(rows: Sequence[dict[str, Any]]) -> str:
    return next(name for name in HEADS if name in rows[0])


def _places(lams: Sequence[float]) -> dict[float, float]:
    """Where each lambda stands: at its decimal logarithm, and 0 a gap left of the smallest."""
    positive = [lam for lam in lams if lam > 0]
    zero = np.log10(min(positive)) - GAP if positive else 0.0
    return {lam: float(np.log10(lam)) if lam > 0 else float(zero) for lam in lams}


def _line(
    axes: Axes,
    rows: Sequence[dict[str, Any]],
    name: str,
    scale: float,
    places: dict[float, float],
    place: int,
    metric: str,
) -> None:
    told = [row for row in rows if row[name] is not None]
    if not told:
        return
    # A little apart, so that the bars of metrics that agree can be seen.
    at = np.array([places[row["lam"]] for row in told]) + 0.03 * place
    values = scale * np.array([row[name] for row in told])
    bars = scale * np.array([row[f"{name}_std"] or 0.0 for row in told])
    axes.errorbar(
        at,
        values,
        bars,
        color=COLOURS[place % len(COLOURS)],
        marker=MARKERS[place % len(MARKERS)],
        label=metric,
        linewidth=1.4,
        elinewidth=0.9,
        markersize=4,
        capsize=2,
    )


def _dress(axes: Axes, places: dict[float, float]) -> None:
    axes.set_xticks(list(places.values()), [f"{lam:g}" for lam in places])
    if 0 in places and len(places) > 1:
        # Two strokes where the axis is broken, between 0 and the logarithmic part.
        middle = places[0] + GAP / 2
        axes.plot(
            [middle - 0.05, middle + 0.05],
            [0, 0],
            transform=axes.get_xaxis_transform(),
            linestyle="",
            marker=[(-0.4, -1), (0.4, 1)],
            markersize=7,
            color=INK,
            clip_on=False,
        )
    axes.tick_params(labelsize=8)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _cell(value: float | None, spread: float | None, factor: float, form: str) -> str:
    if value is None:
        return "-"
    text = f"{value * factor:{form}}"
    return f"{text} ± {spread * factor:{form}}" if spread is not None else text
