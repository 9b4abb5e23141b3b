"""The table of costs: bytes and FLOPs of every arm of a comparison beside the quality that it reached."""

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
"""Columns of the table. ``probe_share`` is the share of all FLOPs that the probes took."""


@dataclass(frozen=True)
class RunCosts:
    """The costs of one run of T rounds.

    Attributes:
        seed: the seed of the run.
        rounds: [T], the rows of costs.json; see `RoundCosts.row`.
        metrics: [T], the rows of metrics.jsonl.
    """

    seed: int
    rounds: Sequence[Mapping[str, Any]]
    metrics: Sequence[Mapping[str, Any]]

    def rows(self) -> list[dict[str, Any]]:
        """Returns the rows of costs.json, each with its ``seconds`` and the sum ``flops``."""
        rows = []
        for row, metric in zip(self.rounds, self.metrics, strict=True):
            flops = row["forward_flops"] + row["backward_flops"]
            rows.append({**row, "flops": flops, "seconds": metric["seconds"]})
        return rows

    def totals(self) -> dict[str, float]:
        """Returns sums over the rounds, and ``probe_share``."""
        rows = self.rows()
        total = {name: float(sum(row[name] for row in rows)) for name in SUMS}
        flops = total["forward_flops"] + total["backward_flops"]
        return {**total, "probe_share": total["probe_flops"] / flops if flops else 0.0}

    def path(self, quality: str, cost: str) -> list[tuple[int, float, float]]:
        """Returns (round, cost so far, quality) for each round with a test.

        Args:
            quality: one of `QUALITIES`.
            cost: a key of `rows`.
        """
        spent = accumulate(row[cost] for row in self.rows())
        told = zip(self.metrics, spent, strict=True)
        return [(row["round"], cost, row[quality]) for row, cost in told if row[quality] is not None]

    def last(self, quality: str) -> float | None:
        """Returns the quality of the last test; None without a test."""
        found = [row[quality] for row in self.metrics if row[quality] is not None]
        return found[-1] if found else None


def mean_path(runs: Sequence[RunCosts], quality: str, cost: str) -> dict[int, tuple[float, float]]:
    """Returns cost so far and quality by round: means over the runs, for the rounds that all of them tested.

    Args:
        runs: the runs of one arm.
        quality: one of `QUALITIES`.
        cost: a key of `rows`.
    """
    paths = [{at: (spent, value) for at, spent, value in run.path(quality, cost)} for run in runs]
    rounds = sorted(set.intersection(*map(set, paths))) if paths else []
    return {at: (mean(path[at][0] for path in paths), mean(path[at][1] for path in paths)) for at in rounds}


def read_costs(arms: Mapping[str, Sequence[Path]]) -> dict[str, list[RunCosts]]:
    """Reads the costs that finished runs have measured.

    Args:
        arms: for each arm's name the directories of its runs, one for each seed.

    Raises:
        InputError: a run is missing or not finished, has not measured its costs, or its files have changed.
    """
    return {name: [_read(path) for path in paths] for name, paths in arms.items()}


def _read(path: Path) -> RunCosts:
    directory, _ = RunDirectory.open(path, "RUN_DIR")
    _, rows = read_finished(directory, "RUN_DIR")
    metrics, rounds = rows[METRICS], read_round_costs(directory)
    if [row["round"] for row in rounds] != [row["round"] for row in metrics]:
        expected = "costs of the rounds that the run has"
        raise InputError("RUN_DIR", str(path), expected, "Resume the run, which measures them again.")
    return RunCosts(RunSettings.read(path).seed, rounds, metrics)


def cost_rows(arms: Mapping[str, Sequence[RunCosts]]) -> list[dict[str, Any]]:
    """Returns a row for each arm: mean and sample standard deviation over its runs of every column.

    The qualities are those of the last test. A quality that no run has is left out.
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
    """Returns heads and cells of the table, formatted, with one quality."""
    quality = next((name for name in QUALITIES if name in rows[0]), None)
    shown = [column_of(name) for name in MEASURES if name not in QUALITIES or name == quality]
    cells = [
        [str(row["arm"]), *(column.cell(row[column.key], row[f"{column.key}_std"]) for column in shown)]
        for row in rows
    ]
    return ["arm", *(column.head() for column in shown)], cells


def cost_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Returns the table for a terminal."""
    return terminal_table(cost_cells(rows), title, left=("arm",), break_at=" ")


def _all(arms: Mapping[str, Sequence[RunCosts]]) -> list[RunCosts]:
    return [run for runs in arms.values() for run in runs]
