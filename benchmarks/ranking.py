"""Compares the ranking of layers by several methods with float64's, on one real federated round.

    python benchmarks/ranking.py [--rounds 10] [--out benchmarks/results/ranking.csv]

Trains the quickstart federation for some rounds, takes the next round's averaged change in float32 and
in bfloat16, and scores its layers by Eq. 1 with every method. For each it prints the number of groups of like
layers whose order differs from the float64 oracle's on the same numbers, and the worst error of |mean|/std,
which decides the score.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fedtlu_fast import ParameterLayout, layer_stats, load_config, score_layers
from fedtlu_fast.build.run import open_run
from fedtlu_fast.ops import backends
from fedtlu_fast.profiling.accuracy import excess_in_float64, misranked
from fedtlu_fast.profiling.rivals import float32_loop
from fedtlu_fast.simulation.round import run_round


def real_change(rounds: int) -> tuple[Tensor, ParameterLayout]:
    """Returns the change of round `rounds` + 1, every block applied, and its layout by tensors."""
    run = open_run(load_config("quickstart", overrides=["selector=full", f"rounds={rounds + 1}"]))
    run.advance(rounds)
    after, _ = run_round(run.server, run.state)
    shapes = {layer.name: layer.shape for layer in run.layout.layers}
    return after.params - run.state.params, ParameterLayout.from_shapes(shapes, "tensor")


def rows(change: Tensor, layout: ParameterLayout) -> list[dict[str, object]]:
    """Returns one row per way of scoring and dtype of the change."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        given = change.to(dtype)
        layers = list(layout.views(given).values())
        oracle = torch.stack([excess_in_float64(layer) for layer in layers])
        for arithmetic in dict.fromkeys((torch.float32, dtype)):
            excess = float32_loop([layer.to(arithmetic) for layer in layers])
            who = f"torch {str(arithmetic).removeprefix('torch.')} loop"
            found.append(row(who, dtype, excess, oracle, layout))
        for backend in backends.live_backends("cpu"):
            excess = score_layers(layer_stats(given, layout, backend=backend)).excess
            found.append(row(f"fedtlu {backend}", dtype, excess, oracle, layout))
    return found


def row(
    who: str, dtype: torch.dtype, excess: Tensor, oracle: Tensor, layout: ParameterLayout
) -> dict[str, object]:
    """Makes a line of the table."""
    error = (excess.clamp(min=0).sqrt() - oracle.sqrt()).abs().max()
    return {
        "scored by": who,
        "change in": str(dtype).removeprefix("torch."),
        "groups mis-ranked": misranked(excess, oracle, layout),
        "groups": len(layout.groups),
        "worst error of mean/std": f"{float(error):.1e}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10, help="rounds before the scored round")
    parser.add_argument("--out", type=Path, help="CSV file to write")
    options = parser.parse_args()
    change, layout = real_change(options.rounds)
    found = rows(change, layout)
    table = Table(
        title=f"Ranking of {len(layout.layers)} layers in {len(layout.groups)} groups of like layers"
    )
    for head in found[0]:
        table.add_column(head, justify="left" if head in ("scored by", "change in") else "right")
    for line in found:
        table.add_row(*map(str, line.values()))
    Console(width=100).print(table)
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, found[0])
            writer.writeheader()
            writer.writerows(found)


if __name__ == "__main__":
    main()
