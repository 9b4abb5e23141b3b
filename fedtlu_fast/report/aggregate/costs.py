"""What the arms of a comparison cost and what they reached, from their directories, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from fedtlu_fast.errors import InputError
from fedtlu_fast.report.columns import column_of
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.report.tables import Cells, terminal_table
from fedtlu_fast.runs.costs import read_round_costs
from fedtlu_fast.runs.directory import METRICS, RunDirectory
from fedtlu_fast.runs.reading import read_finished

QUALITIES = ("test_accuracy", "test_perplexity")
SUMS = ("bytes_up", "bytes_down", "forward_flops", "backward_flops", "probe_flops", "seconds")
MEASURES = (
    *QUALITIES,
    "bytes_up",
    "bytes_down",
    "forward_flops",
    "backward_flops",
    "probe_share",
    "seconds",
)
"""Columns of the table; the probes' share is of all FLOPs."""


@dataclass(frozen=True)
class RunCosts:
    """One run.

    Attributes:
        seed: of the run.
        rounds: [T] rows of costs.json, see `RoundCosts.row`.
        metrics: [T] rows of metrics.jsonl.
    """

    seed: int
    rounds: Sequence[Mapping[str, Any]]
    metrics: Sequence[Mapping[str, Any]]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of each round, with its ``seconds`` and all ``flops`` together."""
        rows = []
        for row, metric in zip(self.rounds, self.metrics, strict=True):
            flops = row["forward_flops"] + row["backward_flops"]
            rows.append({**row, "flops": flops, "seconds": metric["seconds"]})
        return rows

    def totals(self) -> dict[str, float]:
        """Sums over the rounds, and ``probe_share``."""
        rows = self.rows()
        total = {name: float(sum(row[name] for row in rows)) for name in SUMS}
        flops = total["forward_flops"] + total["backward_flops"]
        return {**total, "probe_share": total["probe_flops"] / flops if flops else 0.0}

    def path(self, quality: str, cost: str) -> list[tuple[int, float, float]]:
        """(round, cost so far, quality) of each round with a test.

        Args:
            quality: one of `QUALITIES`.
            cost: a key of `rows`.
        """
        spent = accumulate(row[cost] for row in self.rows())
        told = zip(self.metrics, spent, strict=True)
        return [(row["round"], cost, row[quality]) for row, cost in told if row[quality] is not None]

    def last(self, quality: str) -> float | None:
        """Of the last test; None without any."""
        found = [row[quality] for row in self.metrics if row[quality] is not None]
        return found[-1] if found else None


def read_costs(arms: Mapping[str, Sequence[Path]]) -> dict[str, list[RunCosts]]:
    """The costs of finished runs, as the runs have measured them.

    Args:
        arms: directories of an arm's runs (its seeds), by its name.

    Raises:
        InputError: there is no such run, it is not finished, it has not measured its costs, or its files are
            not as they were written.
    """
    return {name: [_read(path) for path in paths] for name, paths in arms.items()}


def _read(path: Path) -> RunCosts:
    directory, _ = RunDirectory.open(path, "RUN_DIR")
    _, rows = read_finished(directory, "RUN_DIR")
    metrics, rounds = rows[METRICS], read_round_costs(directory)
    if [row["round"] for row in rounds] != [row["round"] for row in metrics]:
        expected = "costs of the rounds that the run has"
        raise InputError("RUN_DIR", str(path), expected, "Resume the run, which measures them anew.")
    return RunCosts(RunSettings.read(path).seed, rounds, metrics)


def cost_rows(arms: Mapping[str, Sequence[RunCosts]]) -> list[dict[str, Any]]:
    """One row per arm: mean and sample standard deviation over its runs of every column.

    Qualities are those of the last test; one that no run has is left out.
    """
    qualities = [name for name in QUALITIES if any(run.last(name) is not None for run in _all(arms))]
    rows = []
    for arm, runs in arms.items():
        row: dict[str, Any] = {"arm": arm, "seeds": len(runs)}
        totals = [run.totals() for run in runs]
        for name in MEASURES:
            if name in qualities:
                values = [value for run in runs if (value := run.last(name)) is not None]
            elif name not in QUALITIES:
                values = [total[name] for total in totals]
            else:
                continue
            row[name] = mean(values) if values else None
            row[f"{name}_std"] = stdev(values) if len(values) > 1 else None
        rows.append(row)
    return rows


def cost_cells(rows: Sequence[Mapping[str, Any]]) -> Cells:
    """Heads and cells of the table as people read it, with one quality."""
    quality = next((name for name in QUALITIES if name in rows[0]), None)
    shown = [column_of(name) for name in MEASURES if name not in QUALITIES or name == quality]
    cells = [
        [str(row["arm"]), *(column.cell(row[column.key], row[f"{column.key}_std"]) for column in shown)]
        for row in rows
    ]
    return ["arm", *(column.head() for column in shown)], cells


def cost_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """The table for a terminal."""
    return terminal_table(cost_cells(rows), title, left=("arm",), break_at=" ")


def _all(arms: Mapping[str, Sequence[RunCosts]]) -> list[RunCosts]:
    return [run for runs in arms.values() for run in runs]
