"""The comparison table: one row a selector, mean and spread over seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.shown import visible

MEASURES = {
    "test_perplexity": "global ppl",
    "local_perplexity": "local ppl",
    "trained_local_perplexity": "local ppl, trained",
    "test_accuracy": "global acc",
    "local_accuracy": "local acc",
    "test_macro_f1": "mean F1",
    "updated_share": "updated",
    "bytes_published": "MB published",
    "bytes_up": "MB up",
    "seconds": "seconds in rounds",
}
SOME = ("test_accuracy", "local_accuracy", "test_macro_f1")
"""Measures that only some tasks have; the others' tables are without them."""
BASELINE = "random"


def comparison_rows(results: Sequence[ArmResult]) -> list[dict[str, Any]]:
    """One row per selector: mean and sample standard deviation over seeds of every measure.

    ``gain_over_random_pct`` is how much lower the global perplexity is than random's, seed by seed, in
    per cent; None without a random arm, and where no arm had a targeted round.
    """
    rows = []
    measures = [
        name
        for name in MEASURES
        if name not in SOME or any(result.summary.get(name) is not None for result in results)
    ]
    # A model that diverged has no finite perplexity, and so no place in a mean.
    baseline = {
        r.seed: r.summary["test_perplexity"]
        for r in results
        if r.selector == BASELINE and r.summary["test_perplexity"] is not None
    }
    for selector in dict.fromkeys(result.selector for result in results):
        own = [result for result in results if result.selector == selector]
        row: dict[str, Any] = {
            "selector": selector,
            "seeds": [result.seed for result in own],
            "targeted_rounds": max(map(_targeted, own)),
        }
        for measure in measures:
            # Runs of earlier versions lack what only some tasks have.
            found = [result.summary.get(measure) for result in own]
            values = [value for value in found if value is not None]
            row[measure] = mean(values) if values else None
            row[f"{measure}_std"] = stdev(values) if len(values) > 1 else None
        gains = [
            100 * (baseline[r.seed] - r.summary["test_perplexity"]) / baseline[r.seed]
            for r in own
            if r.seed in baseline
            and r.summary["test_perplexity"] is not None
            and any(map(_targeted, results))
        ]
        row["gain_over_random_pct"] = mean(gains) if gains else None
        row["gain_over_random_pct_std"] = stdev(gains) if len(gains) > 1 else None
        rows.append(row)
    return rows


def _targeted(result: ArmResult) -> int:
    """Rounds in which the arm's selector chose."""
    return int(result.summary["rounds"]) - int(result.summary["warmup_rounds"])


def comparison_cells(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the table as people read it."""
    measures = [name for name in MEASURES if name in rows[0]]
    heads = ["selector", *(MEASURES[name] for name in measures), "gain over random"]
    cells = []
    for row in rows:
        texts = [_cell(measure, row[measure], row[f"{measure}_std"]) for measure in measures]
        gain = _cell("gain", row["gain_over_random_pct"], row["gain_over_random_pct_std"])
        cells.append([row["selector"], *texts, "" if row["selector"] == BASELINE else gain])
    return heads, cells


def comparison_table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """The table for a terminal."""
    heads, cells = comparison_cells(rows)
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, justify="left" if head == "selector" else "right", overflow="fold")
    for line in cells:
        table.add_row(*line)
    return table


def to_markdown(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *cells]
    return "".join(f"| {' | '.join(_in_markdown(cell) for cell in line)} |\n" for line in lines)


def _in_markdown(cell: str) -> str:
    return visible(cell).replace("|", "\\|")


def to_csv_rows(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with the same keys, in full; empty where there is no figure."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The full figures; empty where there is none."""
    buffer = io.StringIO()
    fields = [key for key in rows[0] if key != "seeds"]
    writer = csv.DictWriter(buffer, ["seeds", *fields])
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "seeds": " ".join(map(str, row["seeds"]))})
    return buffer.getvalue()


def _cell(measure: str, value: float | None, spread: float | None) -> str:
    if value is None:
        return "-"
    form, scale, unit = {
        "test_accuracy": (".2f", 100, "%"),
        "local_accuracy": (".2f", 100, "%"),
        "test_macro_f1": (".3f", 1, ""),
        "updated_share": (".1f", 100, "%"),
        "bytes_published": (".1f", 1e-6, ""),
        "bytes_up": (".0f", 1e-6, ""),
        "gain": ("+.2f", 1, "%"),
        "seconds": (".1f", 1, ""),
    }.get(measure, (".2f", 1, ""))
    text = f"{value * scale:{form}}{unit}"
    shown = spread is not None and measure not in ("bytes_up", "updated_share", "bytes_published")
    return f"{text} ± {spread * scale:{form.removeprefix('+')}}" if shown and spread is not None else text
