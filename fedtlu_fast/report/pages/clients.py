"""The report of a comparison in which clients choose: quality, costs, and who trained what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fedtlu_fast.report.aggregate.ablation import SweepArm, ablation_cells, ablation_rows, sweep_arms
from fedtlu_fast.report.aggregate.clients import client_cells
from fedtlu_fast.report.aggregate.costs import RunCosts, cost_cells, cost_rows, read_costs
from fedtlu_fast.report.arms import arm_names, budgets_of, chooses, is_reference
from fedtlu_fast.report.figures.ablation import ablation_figure
from fedtlu_fast.report.figures.arm_curves import Curve, curves_by_budget
from fedtlu_fast.report.figures.client_maps import Choices, arms_choices, maps_figure
from fedtlu_fast.report.figures.costs import costs_figure, ends_figure
from fedtlu_fast.report.figures.own_columns import OWN, OWN_TITLE, own_figures
from fedtlu_fast.report.headline import headline_of_arms
from fedtlu_fast.report.own_columns import NO_COLUMNS, OwnColumns
from fedtlu_fast.report.pages.page import write_page, write_pictures
from fedtlu_fast.report.pages.parts import attempt, pictures, tables
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.report.tables import Cells, to_csv, to_markdown
from fedtlu_fast.runs.directory import RunDirectory
from fedtlu_fast.runs.results import ArmResult, arm_path
from fedtlu_fast.tasks.metrics import Figure as Quality

TITLES = {
    "comparison": "Global test over rounds: mean over seeds, bands from the smallest to the largest",
    "costs": "Quality against the bytes that clients sent and the FLOPs that they computed (mean over seeds; "
    "a dot marks the last round)",
    "costs-end": "Quality of the last test against the bytes and FLOPs of all rounds",
    "maps": "Share of the cohort that trained each block, mean over seeds; input at the bottom. "
    "Blocks that are not chosen (all clients train them, or none) are left out",
    "agreement": "How far the clients of a round agree: the Jaccard index of two clients' sets of blocks, "
    "mean over pairs and seeds",
    "ablation": "Quality and agreement for every lambda",
    OWN: OWN_TITLE,
}


def write_client_report(
    results: Sequence[ArmResult],
    rows: Sequence[dict[str, Any]],
    settings: RunSettings,
    out: Path,
    own: OwnColumns = NO_COLUMNS,
) -> None:
    """Writes the report of a comparison whose arms are in ``out/{arm}-seed{seed}``, without comparison.json.

    These are table.md and .csv, costs.md and .csv, pictures and report.html. Arms without targeted rounds are
    in the table, and are levels in the curves. A part that cannot be made is left out, and the log says why.

    Args:
        results: the arms with all seeds; clients choose in one of them or more.
        rows: the rows of `client_rows`.
        settings: the arms' common settings.
        out: the comparison's directory.
        own: columns that are asked for besides.

    Raises:
        StorageError: something cannot be written.
    """
    quality = headline_of_arms(results)
    arms = [result for result in results if not is_reference(result)]
    folders = {
        name: [arm_path(out, name, result.seed) for result in arms if result.selector == name]
        for name in arm_names(arms)
    }
    measured = settings.measures_costs
    costs = (attempt("the costs", lambda: read_costs(folders)) or {}) if measured else {}
    directory = RunDirectory(out)
    written: list[dict[str, Any]] = []

    def add(title: str, name: str, full: str, table: Cells) -> None:
        directory.write(f"{name}.csv", full)
        directory.write(f"{name}.md", f"{title}: {settings.rounds_text}\n\n{to_markdown(*table)}")
        written.append({"title": title, "heads": table[0], "cells": table[1]})

    def add_costs() -> None:
        spent = cost_rows(costs)
        add("Costs of all rounds", "costs", to_csv(spent), cost_cells(spent))

    add("Comparison", "table", to_csv(rows), client_cells(rows, own))
    if costs:
        attempt("the table of costs", add_costs)
    figures = client_figures(results, costs, quality) | own_figures(results, own)
    sweep = sweep_arms(results)
    if len({arm.lam for arm in sweep}) > 1:
        told = attempt("the table of lambda", lambda: write_ablation(sweep, out))
        if told is not None:
            written += tables({"Lambda": lambda: ablation_cells(told, quality)})
            figures["ablation"] = lambda: ablation_figure(told, quality)
    drawn = pictures(figures)
    write_pictures(out, drawn)
    write_page(
        out,
        title=f"Which layers each client trains: {len(rows)} arms",
        lead=f"{settings.lead}; mean ± standard deviation over {len(rows[0]['seeds'])} seeds.",
        tables=written,
        pictures={TITLES[name]: picture for name, picture in drawn.items()},
        settings=settings.text,
    )


def client_figures(
    results: Sequence[ArmResult], costs: Mapping[str, Sequence[RunCosts]], quality: Quality
) -> dict[str, Callable[[], Figure]]:
    """Returns functions that draw the pictures of the report, by the names of the files.

    Args:
        results: all arms.
        costs: the costs of the arms with rounds; may be empty.
        quality: the headline.
    """
    warmup = max(int(result.summary["warmup_rounds"]) for result in results if chooses(result))
    label = f"global test {quality.label}"
    choices = attempt("the maps of choices", lambda: arms_choices(results)) or {}
    figures: dict[str, Callable[[], Figure]] = {
        "comparison": lambda: curves_by_budget(
            quality_curves(results, quality), label, max(1, warmup), marked=warmup, bands=True
        )
    }
    if any(run.last(quality.column) is not None for runs in costs.values() for run in runs):
        figures["costs"] = lambda: costs_figure(costs, quality)
        if len(budgets_of(costs)) > 1:
            figures["costs-end"] = lambda: ends_figure(costs, quality)
    if any(run.blocks for runs in choices.values() for run in runs):
        figures["maps"] = lambda: maps_figure(choices)
        told = "agreement: mean pairwise Jaccard index"
        figures["agreement"] = lambda: curves_by_budget(
            agreement_curves(choices), told, warmup + 1, limits=(-0.02, 1.04)
        )
    return figures


def quality_curves(results: Sequence[ArmResult], quality: Quality) -> dict[str, Curve]:
    """Returns the tests of each arm over rounds; a level for an arm without rounds.

    Arms without a test are left out.

    Args:
        results: all arms.
        quality: the headline.
    """
    found: dict[str, Curve] = {}
    for name in arm_names(results):
        own = [result for result in results if result.selector == name]
        if all(map(is_reference, own)):
            told = [result.summary.get(quality.column) for result in own]
            if any(value is not None for value in told):
                found[name] = Curve((), quality.scale * np.array(told, np.float64)[:, None])
            continue
        tested = [{row["round"]: row[quality.column] for row in result.metrics} for result in own]
        rounds = sorted({index for run in tested for index, value in run.items() if value is not None})
        values = np.array([[run.get(index) for index in rounds] for run in tested], np.float64)
        if rounds:
            found[name] = Curve(rounds, quality.scale * values)
    return found


def agreement_curves(choices: Choices) -> dict[str, Curve]:
    """Returns the agreement of each arm over rounds; see `client_choices.agreement`."""
    found = {}
    for name, runs in choices.items():
        rounds = sorted({index for run in runs for index in run.rounds})
        told = [dict(zip(run.rounds, run.agreement.tolist(), strict=True)) for run in runs]
        values = [[run.get(index, np.nan) for index in rounds] for run in told]
        found[name] = Curve(rounds, np.array(values, np.float64))
    return found


def write_ablation(arms: Sequence[SweepArm], out: Path) -> list[dict[str, Any]]:
    """Writes ablation.csv and ablation.md, and returns the rows of the table.

    Raises:
        StorageError: they cannot be written.
    """
    rows = ablation_rows(arms)
    directory = RunDirectory(out)
    directory.write("ablation.csv", to_csv(rows))
    directory.write(
        "ablation.md", to_markdown(*ablation_cells(rows, headline_of_arms([arm.result for arm in arms])))
    )
    return rows
