"""The comparison table: one row a selector, mean and spread over seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from fedtlu_fast.report.headline import headline_of_arms, own_columns
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.shown import visible
from fedtlu_fast.tasks.metrics import PERPLEXITY

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
PERPLEXITIES = ("test_perplexity", "local_perplexity", "trained_local_perplexity")
"""Measures that a task without perplexity as its headline may lack."""
BASELINE = "random"


def comparison_rows(results: Sequence[ArmResult]) -> list[dict[str, Any]]:
    """One row per selector: mean and sample standard deviation over seeds of every measure.

    ``gain_over_random_pct`` is how much better the headline of the global test is than random's, seed by
    seed, in per cent; None without a random arm, and where no arm had a targeted round.
    """
    rows = []
    headline = headline_of_arms(results)
    some = SOME if headline == PERPLEXITY else (*SOME, *PERPLEXITIES)
    known = [
        name
        for name in MEASURES
        if name not in some or any(result.summary.get(name) is not None for result in results)
    ]
    measures = [*own_columns(results), *known]
    # A model that diverged has no finite value, and so no place in a mean.
    reached = [(r, r.summary[headline.column]) for r in results if r.summary.get(headline.column) is not None]
    baseline = {result.seed: float(value) for result, value in reached if result.selector == BASELINE}
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
        pairs = [(r, value) for r, value in reached if r.selector == selector and r.seed in baseline]
        found = [headline.gain(value, baseline[r.seed]) for r, value in pairs if any(map(_targeted, results))]
        gains = [gain for gain in found if gain is not None]
        row["gain_over_random_pct"] = mean(gains) if gains else None
        row["gain_over_random_pct_std"] = stdev(gains) if len(gains) > 1 else None
        rows.append(row)
    return rows


def _targeted(result: ArmResult) -> int:
    """Rounds in which the arm's selector chose."""
    return int(result.summary["rounds"]) - int(result.summary["warmup_rounds"])


def comparison_cells(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the table as people read it."""
    plain = {"selector", "seeds", "targeted_rounds", "gain_over_random_pct"}
    own = [name for name in rows[0] if name not in plain | set(MEASURES) and not name.endswith("_std")]
    measures = [*own, *(name for name in MEASURES if name in rows[0])]
    heads = ["selector", *(MEASURES.get(name) or head_of(name) for name in measures), "gain over random"]
    cells = []
    for row in rows:
        texts = [_cell(measure, row[measure], row[f"{measure}_std"]) for measure in measures]
        gain = _cell("gain", row["gain_over_random_pct"], row["gain_over_random_pct_std"])
        cells.append([row["selector"], *texts, "" if row["selector"] == BASELINE else gain])
    return heads, cells


def head_of(name: str) -> str:
    """The head of a column of the user's own: ``test_rouge_l`` -> ``global rouge l``."""
    test, _, figure = name.partition("_")
    return f"{'global' if test == 'test' else test} {figure.replace('_', ' ')}"


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
    }.get(measure, (".2f" if measure in MEASURES else ".4g", 1, ""))
    text = f"{value * scale:{form}}{unit}"
    shown = spread is not None and measure not in ("bytes_up", "updated_share", "bytes_published")
    return f"{text} ± {spread * scale:{form.removeprefix('+')}}" if shown and spread is not None else text
