"""The report of a comparison in which clients choose: quality, costs, and who trained what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fedtlu_fast.data.holdings import Holdings
from fedtlu_fast.report.aggregate.ablation import SweepArm, ablation_cells, ablation_rows, sweep_arms
from fedtlu_fast.report.aggregate.client_choices import arms_choices
from fedtlu_fast.report.aggregate.clients import client_cells
from fedtlu_fast.report.aggregate.costs import RunCosts, cost_cells, cost_rows, read_costs
from fedtlu_fast.report.aggregate.curves import agreement_curves, quality_curves
from fedtlu_fast.report.arms import arm_names, budgets_of, chooses, is_reference
from fedtlu_fast.report.figures.ablation import ablation_figure
from fedtlu_fast.report.figures.arm_curves import curves_by_budget
from fedtlu_fast.report.figures.client_maps import maps_figure
from fedtlu_fast.report.figures.costs import costs_figure, ends_figure
from fedtlu_fast.report.figures.own_columns import own_figures
from fedtlu_fast.report.headline import headline_of_arms
from fedtlu_fast.report.own_columns import NO_COLUMNS, OwnColumns
from fedtlu_fast.report.pages.arms import ArmsReport, arms_page
from fedtlu_fast.report.pages.content import Part, Sheet
from fedtlu_fast.report.pages.page import write_page, write_pictures
from fedtlu_fast.report.pages.parts import attempt, charts, pictures, sheets
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.report.sections.ablation import ablation_charts
from fedtlu_fast.report.tables import Cells, to_csv, to_markdown
from fedtlu_fast.runs.arm_paths import arm_path
from fedtlu_fast.runs.directory import RunDirectory
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.shown import visible
from fedtlu_fast.tasks.metrics import Figure as Quality


def write_client_report(
    results: Sequence[ArmResult],
    rows: Sequence[dict[str, Any]],
    said: str,
    settings: RunSettings,
    out: Path,
    own: OwnColumns = NO_COLUMNS,
    holdings: Holdings | None = None,
) -> None:
    """Writes the report of a comparison whose arms are in ``out/{arm}-seed{seed}``, without comparison.json.

    These are table.md and .csv, costs.md and .csv, pictures and report.html. Arms without targeted rounds are
    in the table, and are levels in the curves. A part that cannot be made is left out, and the log says why.

    Args:
        results: the arms with all seeds; clients choose in one of them or more.
        rows: the rows of `client_rows`.
        said: the sentence below the table; see `conclusion`.
        settings: the arms' common settings.
        out: the comparison's directory.
        own: columns that are asked for besides.
        holdings: what the clients hold with the first seed; None leaves that out of the page.

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
    more: list[Part] = []

    def write(title: str, name: str, full: str, table: Cells, below: str = "") -> None:
        directory.write(f"{name}.csv", full)
        directory.write(f"{name}.md", f"{title}: {settings.rounds_text}\n\n{to_markdown(*table)}{below}")

    def write_costs() -> None:
        spent = cost_rows(costs)
        write("Costs of all rounds", "costs", to_csv(spent), cost_cells(spent))

    table = client_cells(rows, own)
    write("Comparison", "table", to_csv(rows), table, f"\n{visible(said)}\n")
    if costs:
        attempt("the table of costs", write_costs)
    figures = client_figures(results, costs, quality, said) | own_figures(results, own)
    sweep = sweep_arms(results)
    if len({arm.lam for arm in sweep}) > 1:
        told = attempt("the table of lambda", lambda: write_ablation(sweep, out))
        if told is not None:
            more += sheets({"Lambda": lambda: ablation_cells(told, quality)})
            more += charts({"lambda": lambda: ablation_charts(told, quality)})
            figures["ablation"] = lambda: ablation_figure(told, quality)
    write_pictures(out, pictures(figures))
    title = f"Which layers each client trains: {len(rows)} arms"
    shown = Sheet.of("Comparison", table)
    write_page(out, arms_page(ArmsReport(title, results, shown, settings, out, own, costs, more, holdings)))


def client_figures(
    results: Sequence[ArmResult],
    costs: Mapping[str, Sequence[RunCosts]],
    quality: Quality,
    sentence: str = "",
) -> dict[str, Callable[[], Figure]]:
    """Returns functions that draw the pictures of the report, by the names of the files.

    Args:
        results: all arms.
        costs: the costs of the arms with rounds; may be empty.
        quality: the headline.
        sentence: above the picture of the curves; empty for none.
    """
    warmup = max(int(result.summary["warmup_rounds"]) for result in results if chooses(result))
    label = f"global test {quality.label}"
    choices = attempt("the maps of choices", lambda: arms_choices(results)) or {}
    figures: dict[str, Callable[[], Figure]] = {
        "comparison": lambda: curves_by_budget(
            quality_curves(results, quality),
            label,
            max(1, warmup),
            marked=warmup,
            bands=True,
            sentence=sentence,
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
