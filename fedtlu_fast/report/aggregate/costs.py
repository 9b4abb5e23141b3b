"""What the arms of a comparison cost and what they reached, from their directories, as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fedtlu_fast.client_steps.personal import PersonalPart
from fedtlu_fast.clients.batches import normalises_batches
from fedtlu_fast.config import RunConfig
from fedtlu_fast.costs import NOTHING, BlockCosts, Kept, RoundCosts, run_costs
from fedtlu_fast.data.population import Population, count, example_samples
from fedtlu_fast.errors import InputError
from fedtlu_fast.flops import measure_costs
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.runs.directory import METRICS, SELECTION, RunDirectory
from fedtlu_fast.runs.reading import trusted_rows
from fedtlu_fast.selection.standing import standing_of
from fedtlu_fast.simulation.client_errors import left_to_the_round
from fedtlu_fast.simulation.parts import make_parts
from fedtlu_fast.torch_state import own_state

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
SAMPLES = 2
"""Of the batch by which a model is measured: BatchNorm has no statistics of one."""
PARTS = ("task", "seed", "clients", "data", "partition", "pretraining", "model", "threats")
"""Settings that decide the model and who holds how much."""
Made = tuple[BlockCosts, Population, ParameterLayout, bool]
"""A model's costs, who holds what, its layout, and whether a single sample may be a batch."""


@dataclass(frozen=True)
class RunCosts:
    """One run.

    Attributes:
        seed: of the run.
        rounds: what each of its T rounds cost.
        metrics: [T] rows of metrics.jsonl.
    """

    seed: int
    rounds: Sequence[RoundCosts]
    metrics: Sequence[Mapping[str, Any]]

    def rows(self) -> list[dict[str, Any]]:
        """`RoundCosts.row` of each round, with its ``seconds`` and all ``flops`` together."""
        rows = []
        for costs, metric in zip(self.rounds, self.metrics, strict=True):
            row = costs.row()
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
    """The costs of runs, which may still be under way. Data and model are made anew from their settings.

    Every sample counts at the length of the global test's, padding included.

    Args:
        arms: directories of an arm's runs (its seeds), by its name.

    Raises:
        InputError: there is no such run, it has no round yet, or its log does not belong to its settings.
    """
    made: dict[str, Made] = {}
    found: dict[str, list[RunCosts]] = {}
    for name, paths in arms.items():
        found[name] = []
        for path in paths:
            directory, config = RunDirectory.open(path, "RUN_DIR")
            rows = trusted_rows(directory)
            metrics, selection = rows[METRICS], rows[SELECTION]
            done = min(len(metrics), len(selection))
            if not done:
                raise InputError("RUN_DIR", str(path), "a run with one round or more")
            blocks, population, layout, alone = _parts(config, made)
            held = partial(_held, population)
            chosen = config.client_selection
            probes = chosen.probe_batches if chosen.probes else 0
            kept = _kept(config, layout)
            told = chosen.decides == "server"
            rounds = run_costs(blocks, selection[:done], config.training, held, probes, kept, told, alone)
            found[name].append(RunCosts(config.seed, rounds, metrics[:done]))
    return found


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


def _kept(config: RunConfig, layout: ParameterLayout) -> Kept:
    if not config.client_selection.keeps:
        return NOTHING
    part = PersonalPart(layout, standing_of(config, layout).personal)
    return Kept(part.blocks, part.buffers, config.client_selection.alternate)


def _parts(config: RunConfig, made: dict[str, Made]) -> Made:
    """Made of a run's settings; arms that differ in what is chosen share them."""
    settings = config.model_dump(mode="json", include=set(PARTS))
    key = json.dumps([settings, config.selection.granularity], sort_keys=True)
    if key not in made:
        # FLOPs and sizes are the same on any device, which need not be here.
        with own_state():
            parts = make_parts(config.model_copy(update={"device": "cpu"}), start=False)
            batch = example_samples(parts.population).take(np.arange(SAMPLES) % count(parts.population.test))
            layout = parts.trainer.layout
            alone = not normalises_batches(parts.trainer.task.model)
            costs = measure_costs(parts.trainer.task, layout, batch)
            made[key] = costs, parts.population, layout, alone
    return made[key]


def _held(population: Population, client: int) -> int:
    with left_to_the_round():  # which left it out
        return len(population.train(client))
    return 0


def _all(arms: Mapping[str, Sequence[RunCosts]]) -> list[RunCosts]:
    return [run for runs in arms.values() for run in runs]


def _cell(name: str, value: float | None, spread: float | None) -> str:
    if value is None:
        return "-"
    _, form, factor, unit = COLUMNS[name]
    form = form or (",.1f" if value * factor < 1000 else ",.0f")
    text = f"{value * factor:{form}}{unit}"
    return f"{text} ± {spread * factor:{form}}" if spread is not None and name in SPREAD else text
