"""What the arms of a comparison cost and what they reached, from their directories, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from fedtlu_fast.errors import InputError
from fedtlu_fast.runs.costs import read_round_costs
from fedtlu_fast.runs.directory import METRICS, RunDirectory
from fedtlu_fast.runs.reading import read_finished

QUALITIES = ("test_accuracy", "test_perplexity")
SUMS = ("bytes_up", "bytes_down", "forward_flops", "backward_flops", "probe_flops", "seconds")
COLUMNS = {
    "test_accuracy": ("accuracy", ".2f", 100, "%"),
    "test_perplexity": ("perplexity", ".2f", 1, ""),
    "bytes_up": ("MB up", "", 1e-6, ""),
    "bytes_down": ("MB down", "", 1e-6, ""),
    "forward_flops": ("GFLOP forward", "", 1e-9, ""),
    "backward_flops": ("GFLOP backward", "", 1e-9, ""),
    "probe_share": ("FLOP in probes", ".1f", 100, "%"),
    "seconds": ("seconds", "", 1, ""),
}
"""Title, format (empty: by size), factor and unit of each column; the probes' share is of all FLOPs."""
SPREAD = (*QUALITIES, "seconds")
"""Columns that show their standard deviation."""


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
    directory, config = RunDirectory.open(path, "RUN_DIR")
    _, rows = read_finished(directory, "RUN_DIR")
    metrics, rounds = rows[METRICS], read_round_costs(directory)
    if [row["round"] for row in rounds] != [row["round"] for row in metrics]:
        expected = "costs of the rounds that the run has"
        raise InputError("RUN_DIR", str(path), expected, "Resume the run, which measures them anew.")
    return RunCosts(config.seed, rounds, metrics)


def cost_rows(arms: Mapping[str, Sequence[RunCosts]]) -> list[dict[str, Any]]:
    """One row per arm: mean and sample standard deviation over its runs of every column.

    Qualities are those of the last test; one that no run has is left out.
    """
    qualities = [name for name in QUALITIES if any(run.last(name) is not None for run in _all(arms))]
    rows = []
    for arm, runs in arms.items():
        row: dict[str, Any] = {"arm": arm, "seeds": len(runs)}
        totals = [run.totals() for run in runs]
        for name in COLUMNS:
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


def cost_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the table as people read it, with one quality; see `tables.to_markdown`."""
    quality = next((name for name in QUALITIES if name in rows[0]), None)
    names = [name for name in COLUMNS if name not in QUALITIES or name == quality]
    cells = [
        [str(row["arm"]), *(_cell(name, row[name], row[f"{name}_std"]) for name in names)] for row in rows
    ]
    return ["arm", *(COLUMNS[name][0] for name in names)], cells


def cost_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """The table for a terminal."""
    heads, cells = cost_cells(rows)
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in heads:
        justify: Literal["left", "right"] = "left" if head == "arm" else "right"
        table.add_column(head.replace(" ", "\n", 1), justify=justify, overflow="fold", vertical="bottom")
    for line in cells:
        table.add_row(*line)
    return table


def _all(arms: Mapping[str, Sequence[RunCosts]]) -> list[RunCosts]:
    return [run for runs in arms.values() for run in runs]


def _cell(name: str, value: float | None, spread: float | None) -> str:
    if value is None:
        return "-"
    _, form, factor, unit = COLUMNS[name]
    form = form or (",.1f" if value * factor < 1000 else ",.0f")
    text = f"{value * factor:{form}}{unit}"
    return f"{text} ± {spread * factor:{form}}" if spread is not None and name in SPREAD else text
