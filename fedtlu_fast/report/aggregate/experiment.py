"""The tables of an experiment: mean and standard deviation over seeds, and the gain over random updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from fedtlu_fast.report.arms import BASELINE
from fedtlu_fast.report.columns import COLUMNS, Column
from fedtlu_fast.report.own_columns import NO_COLUMNS, OwnColumns
from fedtlu_fast.runs.results import ArmResult, ConditionResult

MEASURES = (
    ("perplexity", "global", COLUMNS["test_perplexity"]),
    ("perplexity", "local", COLUMNS["local_perplexity"]),
    ("perplexity", "local_trained", COLUMNS["trained_local_perplexity"]),
    ("accuracy", "global", COLUMNS["test_accuracy"]),
    ("accuracy", "local", COLUMNS["local_accuracy"]),
    ("macro_f1", "global", COLUMNS["test_macro_f1"]),
)
"""Metric, split and column. The split `local` is the global model on the clients' own tests; `local_trained`
is the same after each client has trained the model once more."""
OWN = "run"
"""The split of columns that are asked for: each of their numbers belongs to a whole run."""
HEADS = (
    "aggregator",
    "threat",
    "selector",
    "metric",
    "split",
    "mean",
    "std",
    "gain over random, %",
    "95% interval",
)


def experiment_rows(
    name: str, results: Sequence[ConditionResult], own: OwnColumns = NO_COLUMNS
) -> list[dict[str, Any]]:
    """Returns a row for each condition, selector, metric and split; measures that a task lacks are left out.

    ``gain_over_random_pct`` is how much better the selector is than random updates with the same seed, in per
    cent of random's number, as the mean over seeds. It is None without a random arm, and for a column without
    a direction. ``ci_low`` and ``ci_high`` are its 95% interval by Student's t over the paired gains; they
    are None with fewer than two gains.

    Args:
        name: of the experiment, such as ``ptb-transformer``.
        results: of all conditions.
        own: columns that are asked for besides.
    """
    rows = []
    measures = [*MEASURES, *((column.key, OWN, column) for column in own.columns)]
    for result in results:
        for selector in dict.fromkeys(arm.selector for arm in result.arms):
            arms = [arm for arm in result.arms if arm.selector == selector]
            for metric, split, column in measures:
                found = _by_seed(arms, column, own)
                if not found and split != OWN:
                    continue
                values = list(found.values())
                base = _by_seed([arm for arm in result.arms if arm.selector == BASELINE], column, own)
                gains = [] if selector == BASELINE else _gains(found, base, column)
                low, high = paired_interval(gains)
                rows.append(
                    {
                        "task": arms[0].summary.get("task"),
                        "model": name.partition("-")[2],
                        "aggregator": result.aggregator,
                        "threat": result.threat,
                        "selector": selector,
                        "metric": metric,
                        "split": split,
                        "mean": mean(values) if values else None,
                        "std": stdev(values) if len(values) > 1 else None,
                        "seeds": len(values),
                        "gain_over_random_pct": mean(gains) if gains else None,
                        "ci_low": low,
                        "ci_high": high,
                    }
                )
    return rows


def _by_seed(arms: Sequence[ArmResult], column: Column, own: OwnColumns) -> dict[int, float]:
    """Returns the numbers of an arm's runs by seed; runs without a number are left out."""
    found = {arm.seed: own.value(arm, column.key) for arm in arms}
    return {seed: value for seed, value in found.items() if value is not None}


def _gains(found: Mapping[int, float], base: Mapping[int, float], column: Column) -> list[float]:
    """Returns for each seed how much better a number is than the baseline's, in per cent of the latter."""
    if column.better is None:
        return []
    sign = 1 if column.better == "higher" else -1
    return [
        100 * sign * (found[seed] - base[seed]) / base[seed]
        for seed in found.keys() & base.keys()
        if base[seed] != 0
    ]


def paired_interval(gains: Sequence[float]) -> tuple[float | None, float | None]:
    """Computes the 95% interval of the mean by Student's t; (None, None) for fewer than two numbers."""
    reach = interval_reach(gains)
    return (None, None) if reach is None else (mean(gains) - reach, mean(gains) + reach)


def interval_reach(gains: Sequence[float]) -> float | None:
    """Computes half the length of that interval; None for fewer than two numbers."""
    from scipy.stats import t  # takes half a second to import

    if len(gains) < 2:
        return None
    return float(t.ppf(0.975, len(gains) - 1)) * stdev(gains) / sqrt(len(gains))


def experiment_cells(rows: Sequence[dict[str, Any]], own: OwnColumns = NO_COLUMNS) -> list[list[str]]:
    """Returns the cells of the table, formatted; the heads are `HEADS`."""
    cells = []
    for row in rows:
        gain, low = row["gain_over_random_pct"], row["ci_low"]
        cells.append(
            [
                *(row[key] for key in ("aggregator", "threat", "selector", "metric", "split")),
                _number(row, "mean", own),
                "" if row["std"] is None else _number(row, "std", own),
                "" if gain is None else f"{gain:+z.2f}",
                "" if low is None else f"{low:+z.2f} to {row['ci_high']:+z.2f}",
            ]
        )
    return cells


def experiment_table(rows: Sequence[dict[str, Any]], title: str, own: OwnColumns = NO_COLUMNS) -> Table:
    """Returns the table for a terminal: a line for each condition, metric and split; a column for a selector.

    The gain stands behind the mean, with a star if its interval does not contain 0.
    """
    selectors = list(dict.fromkeys(row["selector"] for row in rows))
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        if row["metric"] == "macro_f1" or row["split"] == "local_trained":
            continue
        place = tuple(row[key] for key in ("aggregator", "threat", "metric", "split"))
        gain = row["gain_over_random_pct"]
        told = "" if gain is None else f" ({gain:+z.1f}%{'*' if _clear(row) else ''})"
        lines.setdefault(place, {})[row["selector"]] = _number(row, "mean", own) + told
    caption = (
        "In brackets: gain over random; *: its 95% interval does not contain 0. table.md has every measure."
    )
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for head in ("aggregator", "threat", "metric", "split"):
        table.add_column(head)
    for selector in selectors:
        table.add_column(selector, justify="right")
    for place, cells in lines.items():
        table.add_row(*place, *(cells.get(selector, "-") for selector in selectors))
    return table


def _clear(row: dict[str, Any]) -> bool:
    return row["ci_low"] is not None and not row["ci_low"] <= 0 <= row["ci_high"]


def _number(row: Mapping[str, Any], key: str, own: OwnColumns) -> str:
    value: float | None = row[key]
    if value is None or row["split"] == OWN:
        return own.column_of(row["metric"]).cell(value, narrow=True)
    return f"{value:.4g}" if value >= 1000 else f"{value:.3f}"
