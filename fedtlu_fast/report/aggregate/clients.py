"""The comparison table of arms in which clients choose, with gains over random choices of the same budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from fedtlu_fast.report.arms import arm_names, baseline_of, is_random
from fedtlu_fast.report.headline import own_metrics
from fedtlu_fast.report.own_columns import NO_COLUMNS, OwnColumns
from fedtlu_fast.report.tables import Cells, terminal_table
from fedtlu_fast.runs.results import ArmResult

Row = dict[str, Any]
MEASURES = (
    "test_accuracy",
    "accuracy_gain_points",
    "local_accuracy",
    "test_macro_f1",
    "test_perplexity",
    "gain_over_random_pct",
    "local_perplexity",
    "bytes_up",
    "seconds",
)
"""The columns of perplexity (`PERPLEXITIES`) are shown only if there is no accuracy."""
PERPLEXITIES = ("test_perplexity", "gain_over_random_pct", "local_perplexity")


def client_rows(results: Sequence[ArmResult], own: OwnColumns = NO_COLUMNS) -> list[Row]:
    """Returns a row for each arm: mean and sample standard deviation over seeds of every column.

    Columns that no arm has are left out, except those of `own`. Metrics of the user's own task come first.

    Gains are over the random choice within the same budget (``X@2`` over ``random@2``), seed by seed: in
    points of accuracy, or in per cent by which the perplexity is lower. They are None without such an arm.

    Args:
        results: of all arms and seeds.
        own: columns that are asked for besides.
    """
    gains: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], float | None]] = {
        "accuracy_gain_points": _points,
        "gain_over_random_pct": _lower,
    }
    by_arm = {
        name: {result.seed: result for result in results if result.selector == name}
        for name in arm_names(results)
    }
    columns = list(dict.fromkeys([*own_metrics(results), *MEASURES, *own.keys]))
    table: dict[str, dict[str, list[float]]] = {}
    for name, runs in by_arm.items():
        base = {} if is_random(name) else by_arm.get(baseline_of(name, by_arm), {})
        found = table.setdefault(name, {})
        for column in columns:
            values: list[float | None]
            if column in gains:
                both = [(runs[seed].summary, base[seed].summary) for seed in runs if seed in base]
                values = [gains[column](*pair) for pair in both]
            else:
                values = [own.value(run, column) for run in runs.values()]
            found[column] = [value for value in values if value is not None]
    kept = [
        column for column in columns if column in own.keys or any(found[column] for found in table.values())
    ]
    rows = []
    for name, found in table.items():
        row: Row = {"selector": name, "seeds": list(by_arm[name])}
        for column in kept:
            known = found[column]
            row[column] = mean(known) if known else None
            row[f"{column}_std"] = stdev(known) if len(known) > 1 else None
        rows.append(row)
    return rows


def client_cells(rows: Sequence[Row], own: OwnColumns = NO_COLUMNS) -> Cells:
    """Returns heads and cells of the table, formatted."""
    accurate = "test_accuracy" in rows[0]
    found = [name.removesuffix("_std") for name in rows[0] if name.endswith("_std")]
    kept = [name for name in found if name in own.keys or not (accurate and name in PERPLEXITIES)]
    shown = [own.column_of(name) for name in kept]
    cells = [
        [row["selector"], *(one.cell(row[one.key], row[f"{one.key}_std"], narrow=True) for one in shown)]
        for row in rows
    ]
    return ["arm", *(column.head(narrow=True) for column in shown)], cells


def client_table(rows: Sequence[Row], title: str, own: OwnColumns = NO_COLUMNS) -> Table:
    """Returns the table for a terminal of 110 columns."""
    return terminal_table(client_cells(rows, own), title, left=("arm",), break_at=", ")


def _points(own: Mapping[str, Any], base: Mapping[str, Any]) -> float | None:
    mine, other = own.get("test_accuracy"), base.get("test_accuracy")
    return None if mine is None or other is None else 100 * (mine - other)


def _lower(own: Mapping[str, Any], base: Mapping[str, Any]) -> float | None:
    mine, other = own.get("test_perplexity"), base.get("test_perplexity")
    return None if mine is None or other is None else 100 * (other - mine) / other
