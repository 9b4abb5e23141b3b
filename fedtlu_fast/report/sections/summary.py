"""What a page shows of one run's summary: the figures that are read first, and tables of all others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fedtlu_fast.report.aggregate.comparison import SOME
from fedtlu_fast.report.columns import COLUMNS, column_of
from fedtlu_fast.report.own_columns import OwnColumns
from fedtlu_fast.report.verdict import said_of
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.tasks.metrics import Figure as Quality

LOCAL = "clients' own tests"
MOST_LABELS = 200
"""The largest number of labels in a table of the page."""


def facts(summary: Mapping[str, Any], headline: Quality) -> list[tuple[str, str]]:
    """Returns the figures that are read first, each with its name.

    Args:
        summary: the content of summary.json.
        headline: the headline of the run.
    """
    names = {
        f"global {headline.title}": headline.column,
        "before round 1": f"start_{headline.column}",
        LOCAL: f"local_{headline.name}",
        "after they trained once more": f"trained_local_{headline.name}",
    }
    found = [(name, said_of(headline, summary[key])) for name, key in names.items() if _known(summary, key)]
    for key, title in (
        ("updated_share", "parameters updated in a round"),
        ("bytes_up", "sent by clients"),
        ("seconds", "seconds in rounds"),
    ):
        if _known(summary, key):
            unit = " MB" if key == "bytes_up" else ""
            found.append((title, f"{COLUMNS[key].cell(summary[key])}{unit}"))
    best = summary.get("best")
    if best:
        value = column_of(best["metric"]).cell(best["value"])
        found.append(("best model kept", f"after round {best['round']}: {best['metric']} {value}"))
    return found


def _known(summary: Mapping[str, Any], key: str) -> bool:
    return summary.get(key) is not None


def summary_cells(summary: Mapping[str, Any]) -> list[list[str]]:
    """Returns a line for each entry of a summary, without those that have a section of their own."""
    some = (*SOME, "start_test_accuracy", "malicious_clients", "malicious_updates")
    left_out = {"groups", "test_f1", "environment", "data", "figures"}
    left_out.update(key for key in some if summary.get(key) is None)
    cells = [[key, _text(value)] for key, value in summary.items() if key not in left_out]
    # Which data were read as which part; runs of earlier versions did not record it.
    data = summary.get("data", {})
    titles = {"source": "data", "said": "data, what was read"}
    return [*cells, *([title, data[key]] for key, title in titles.items() if key in data)]


def own_cells(run: ArmResult, own: OwnColumns) -> list[list[str]]:
    """Returns a line for each column that is asked for."""
    return [[column.head(), column.cell(own.value(run, column.key))] for column in own.columns]


def label_cells(f1: Mapping[str, float]) -> list[list[str]]:
    """Returns a line for each label; labels beyond `MOST_LABELS` share one line."""
    shown = [[label, f"{score:.4f}"] for label, score in list(f1.items())[:MOST_LABELS]]
    rest = len(f1) - len(shown)
    return [*shown, [f"{rest:,} more in summary.json", ""]] if rest else shown


def _text(value: Any) -> str:
    """Formats a value of the summary: text as it is, numbers readably, and everything else as JSON."""
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4f}".rstrip("0").rstrip(".")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
