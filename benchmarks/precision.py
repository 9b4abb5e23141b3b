"""Compares the chosen blocks of the same rounds when training in float32 and in bfloat16.

    python benchmarks/precision.py [PRESET] [--set KEY=VALUE ...] [--seeds 3] [--rounds 10] [--out FILE.csv]

For every seed, each round is run in float32 and, from the same state with the same cohort and batches, in
bfloat16; the float32 state goes on. The script compares the scores of the largest group's blocks (Kendall's
tau), the choices, and every layer's excess and norm (median relative difference). `vectorized` is float32
too, with five clients in one call: it differs by rounding alone. At the end the script measures, in turns,
how many times as fast a client trains in bfloat16.
"""

from __future__ import annotations

import argparse
import csv
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from scipy.stats import kendalltau

from fedtlu_fast import RunConfig, load_config
from fedtlu_fast.build.run import open_run
from fedtlu_fast.simulation.round import RoundRecord, run_round
from fedtlu_fast.simulation.run import Run

WAYS = {
    "bfloat16": {"precision": "bfloat16"},
    "vectorized": {"executor": "vectorized", "clients_per_batch": 5},
}
"""Name -> execution settings in which a way differs from the float32 run."""


@dataclass(frozen=True)
class Agreement:
    """Holds the agreement of a round in another precision or engine with the same round in float32."""

    tau: float
    same_choice: bool
    shared: float
    excess_apart: float
    change_apart: float


def compared(one: RoundRecord, other: RoundRecord, run: Run) -> Agreement:
    """Compares two records of one round."""
    group = max(run.layout.groups, key=lambda own: len(own.blocks))
    blocks = list(group.blocks)
    scores = [record.values.blocks[blocks].numpy() for record in (one, other)]
    best = [set(np.argsort(-own)[: run.server.keep]) for own in scores]
    known = ~one.scores.degenerate.numpy()
    excess = [record.scores.excess.numpy()[known] for record in (one, other)]
    lengths = [record.stats.l2.numpy()[known] for record in (one, other)]
    return Agreement(
        tau=float(kendalltau(*scores).statistic),
        same_choice=best[0] == best[1],
        shared=len(best[0] & best[1]) / len(best[0]),
        excess_apart=float(np.median(np.abs(excess[1] / excess[0] - 1))),
        change_apart=float(np.median(np.abs(lengths[1] / lengths[0] - 1))),
    )


def rounds_of(config: RunConfig, rounds: int) -> dict[str, list[Agreement]]:
    """Returns the agreement of every way, round by round along the float32 run."""
    found: dict[str, list[Agreement]] = {name: [] for name in WAYS}
    settings = {name: config.execution.model_copy(update=own) for name, own in WAYS.items()}
    with closing(open_run(config)) as plain:
        others = {
            name: open_run(config.model_copy(update={"execution": own})) for name, own in settings.items()
        }
        state = plain.state
        for _ in range(rounds):
            following, record = run_round(plain.server, state)
            for name, other in others.items():
                found[name].append(compared(record, run_round(other.server, state)[1], plain))
            state = following
        for other in others.values():
            other.close()
    return found


def speed(config: RunConfig, repeats: int = 5) -> float:
    """Measures how many times as fast a client trains in bfloat16, one by one; a median of several turns."""
    mixed = config.execution.model_copy(update=WAYS["bfloat16"])
    runs = [open_run(config), open_run(config.model_copy(update={"execution": mixed}))]
    seconds: list[list[float]] = [[], []]
    for turn in range(repeats + 1):
        for own, run in zip(seconds, runs, strict=True):
            trainer, population = run.server.trainer, run.server.population
            begin = time.perf_counter()
            for client in range(5):
                trainer.train(run.state.params, run.state.buffers, population.train(client), 1, client)
            if turn:
                own.append(time.perf_counter() - begin)
    for run in runs:
        run.close()
    return median(one / other for one, other in zip(*seconds, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset", nargs="?", default="udpos-transformer-small")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, help="CSV file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[Agreement]] = {name: [] for name in WAYS}
    for seed in track(range(options.seeds), description="seeds", console=Console(stderr=True)):
        config = load_config(options.preset, overrides=[*options.overrides, f"seed={seed}"])
        for name, rounds in rounds_of(config, options.rounds).items():
            found[name] += rounds
    rows = [
        {
            "preset": options.preset,
            "way": name,
            "rounds": len(own),
            "tau": round(fmean(one.tau for one in own), 4),
            "same_choice": round(fmean(one.same_choice for one in own), 4),
            "shared_blocks": round(fmean(one.shared for one in own), 4),
            "excess_apart": float(f"{median(one.excess_apart for one in own):.3g}"),
            "change_apart": float(f"{median(one.change_apart for one in own):.3g}"),
        }
        for name, own in found.items()
    ]
    for row in rows:
        print(row)
    print(f"a client in bfloat16: {speed(config):.2f} times as fast")
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
