"""The comparison table where clients choose: many arms, few columns, and gains within a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from fedtlu_fast.report.arms import arm_names, baseline_of, selector_of
from fedtlu_fast.report.headline import own_columns
from fedtlu_fast.report.tables import BASELINE, head_of
from fedtlu_fast.runs.results import ArmResult

Row = dict[str, Any]
COLUMNS: dict[str, tuple[str, str, float]] = {
    "test_accuracy": ("global acc, %", ".2f", 100),
    "accuracy_gain_points": ("over random, points", "+z.2f", 1),
    "local_accuracy": ("local acc, %", ".2f", 100),
    "test_macro_f1": ("mean F1", ".3f", 1),
    "test_perplexity": ("global ppl", ".2f", 1),
    "gain_over_random_pct": ("over random, %", "+z.2f", 1),
    "local_perplexity": ("local ppl", ".2f", 1),
    "bytes_up": ("MB up", ",.0f", 1e-6),
    "seconds": ("rounds, seconds", ",.0f", 1),
}
"""Title, format and factor. Columns of perplexity are shown where there is no accuracy."""
PERPLEXITIES = ("test_perplexity", "gain_over_random_pct", "local_perplexity")
PLAIN = ("bytes_up", "seconds")
"""Shown without their spread, which table.csv has."""


def client_rows(results: Sequence[ArmResult]) -> list[Row]:
    """One row per arm: mean and sample standard deviation over seeds of every column that some arm has.

    Figures of the user's own come first.

    Gains are over the random choice within the same budget (``X@2`` over ``random@2``), seed by seed: in
    points of accuracy, or how much lower the perplexity is in per cent; None without such an arm.
    """
    gains: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], float | None]] = {
        "accuracy_gain_points": _points,
        "gain_over_random_pct": _lower,
    }
    by_arm = {
        name: {result.seed: result.summary for result in results if result.selector == name}
        for name in arm_names(results)
    }
    columns = [*own_columns(results), *COLUMNS]
    table: dict[str, dict[str, list[float]]] = {}
    for name, own in by_arm.items():
        base = by_arm.get(baseline_of(name), {}) if selector_of(name) != BASELINE else {}
        found = table.setdefault(name, {})
        for column in columns:
            values: list[float | None]
            if column in gains:
                values = [gains[column](own[seed], base[seed]) for seed in own if seed in base]
            else:
                values = [summary.get(column) for summary in own.values()]
            found[column] = [value for value in values if value is not None]
    kept = [column for column in columns if any(found[column] for found in table.values())]
    rows = []
    for name, found in table.items():
        row: Row = {"selector": name, "seeds": list(by_arm[name])}
        for column in kept:
            known = found[column]
            row[column] = mean(known) if known else None
            row[f"{column}_std"] = stdev(known) if len(known) > 1 else None
        rows.append(row)
    return rows


def client_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the table as people read it."""
    accurate = "test_accuracy" in rows[0]
    own = [name for name in rows[0] if name.startswith(("test_", "local_")) and not name.endswith("_std")]
    names = [*(name for name in own if name not in COLUMNS), *COLUMNS]
    shown = [name for name in names if name in rows[0] and not (accurate and name in PERPLEXITIES)]
    cells = [
        [row["selector"], *(_cell(name, row[name], row[f"{name}_std"]) for name in shown)] for row in rows
    ]
    return ["arm", *(COLUMNS[name][0] if name in COLUMNS else head_of(name) for name in shown)], cells


def client_table(rows: Sequence[Row], title: str) -> Table:
    """The table for a terminal of 110 columns."""
    heads, cells = client_cells(rows)
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in heads:
        justify: Literal["left", "right"] = "left" if head == "arm" else "right"
        table.add_column(head.replace(", ", ",\n"), justify=justify, overflow="fold", vertical="bottom")
    for line in cells:
        table.add_row(*line)
    return table


def _points(own: Mapping[str, Any], base: Mapping[str, Any]) -> float | None:
    mine, other = own.get("test_accuracy"), base.get("test_accuracy")
    return None if mine is None or other is None else 100 * (mine - other)


def _lower(own: Mapping[str, Any], base: Mapping[str, Any]) -> float | None:
    mine, other = own.get("test_perplexity"), base.get("test_perplexity")
    return None if mine is None or other is None else 100 * (other - mine) / other


def _cell(name: str, value: float | None, spread: float | None) -> str:
    if value is None:
        return "-"
    _, form, factor = COLUMNS.get(name, (name, ".4g", 1))
    text = f"{value * factor:{form}}"
    if spread is None or name in PLAIN:
        return text
    return f"{text} ± {spread * factor:{form.removeprefix('+')}}"
