"""The comparison table: a row for each selector, with mean and standard deviation over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from fedtlu_fast.report.arms import BASELINE, arm_names, baseline_of
from fedtlu_fast.report.headline import headline_of_arms, own_metrics
from fedtlu_fast.report.own_columns import NO_COLUMNS, OwnColumns
from fedtlu_fast.report.tables import Cells, terminal_table
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.tasks.metrics import PERPLEXITY

GAIN, POINTS, TRAINED = "gain_over_random_pct", "gain_over_random_points", "trained_local_perplexity"
SOME = ("test_accuracy", "local_accuracy", "test_macro_f1")
"""Measures that only some tasks have; tables of other tasks leave them out."""
PERPLEXITIES = ("test_perplexity", "local_perplexity", TRAINED)
"""Measures that a task without perplexity as its headline may lack."""
MALICIOUS, EPSILON = "malicious_updates", "epsilon"
"""Measures that only runs with threats, and with differential privacy, have."""
MEASURES = (
    *PERPLEXITIES,
    *SOME,
    EPSILON,
    "updated_share",
    "bytes_published",
    "bytes_up",
    MALICIOUS,
    "seconds",
)


def comparison_rows(results: Sequence[ArmResult], own: OwnColumns = NO_COLUMNS) -> list[dict[str, Any]]:
    """Returns a row for each selector: mean and sample standard deviation over seeds of every measure.

    ``gain_over_random_pct`` is how much better the headline of the global test is than random's, seed by
    seed, in per cent of random's number. It is None without a random arm, and if no arm had a targeted round.
    If the headline is shown in per cent, ``gain_over_random_points`` is the difference in points, and tables
    show this one.

    Args:
        results: of all arms and seeds.
        own: columns that are asked for besides.
    """
    rows = []
    headline = headline_of_arms(results)
    some = (*SOME, MALICIOUS, EPSILON, *(() if headline == PERPLEXITY else PERPLEXITIES))
    known = [
        name
        for name in MEASURES
        if name not in some or any(result.summary.get(name) is not None for result in results)
    ]
    measures = list(dict.fromkeys([*own_metrics(results), *known, *own.keys]))
    # A model that diverged has no finite value, and so no place in a mean.
    reached = [(r, r.summary[headline.column]) for r in results if r.summary.get(headline.column) is not None]
    base = baseline_of(BASELINE, arm_names(results))
    baseline = {result.seed: float(value) for result, value in reached if result.selector == base}
    ways = {GAIN: headline.gain, **({POINTS: headline.shown_gain} if headline.percent else {})}
    for selector in dict.fromkeys(result.selector for result in results):
        runs = [result for result in results if result.selector == selector]
        row: dict[str, Any] = {
            "selector": selector,
            "seeds": [result.seed for result in runs],
            "targeted_rounds": max(map(_targeted, runs)),
        }
        for measure in measures:
            # Runs of earlier versions lack what only some tasks have.
            found = [own.value(result, measure) for result in runs]
            values = [value for value in found if value is not None]
            row[measure] = mean(values) if values else None
            row[f"{measure}_std"] = stdev(values) if len(values) > 1 else None
        pairs = [(r, value) for r, value in reached if r.selector == selector and r.seed in baseline]
        told = pairs if any(map(_targeted, results)) else []
        for key, gain in ways.items():
            found = [gain(value, baseline[r.seed]) for r, value in told]
            gains = [one for one in found if one is not None]
            row[key] = mean(gains) if gains else None
            row[f"{key}_std"] = stdev(gains) if len(gains) > 1 else None
        rows.append(row)
    return rows


def _targeted(result: ArmResult) -> int:
    """Returns the number of rounds in which the arm's selector chose."""
    return int(result.summary["rounds"]) - int(result.summary["warmup_rounds"])


def comparison_cells(rows: Sequence[dict[str, Any]], own: OwnColumns = NO_COLUMNS) -> Cells:
    """Returns heads and cells of the table, formatted."""
    measures = [name.removesuffix("_std") for name in rows[0] if name.endswith("_std")]
    if POINTS in measures and GAIN not in own.keys:
        measures.remove(GAIN)  # table.csv keeps it
    for name in (GAIN, POINTS, TRAINED):  # as without a random arm, or with evaluation.trained_clients=0
        if name in measures and name not in own.keys and all(row[name] is None for row in rows):
            measures.remove(name)
    shown = [own.column_of(name) for name in measures]
    base = baseline_of(BASELINE, [row["selector"] for row in rows])
    cells = []
    for row in rows:
        texts = [column.cell(row[column.key], row[f"{column.key}_std"]) for column in shown]
        if row["selector"] == base:
            for name in {GAIN, POINTS} & set(measures):
                texts[measures.index(name)] = ""
        cells.append([row["selector"], *texts])
    return ["selector", *(column.head() for column in shown)], cells


def comparison_table(rows: Sequence[dict[str, Any]], title: str, own: OwnColumns = NO_COLUMNS) -> Table:
    """Returns the table for a terminal."""
    return terminal_table(comparison_cells(rows, own), title, left=("selector",))
