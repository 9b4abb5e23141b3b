"""Compares the paper's score with other metrics for choosing blocks, on the same federation.

    python benchmarks/score_metrics.py RUNS [--seeds 3] [--out benchmarks/results/score-metrics.csv]

The quickstart federation with 6 local steps: 40 full rounds as warm-up, shared by all arms of a seed, then 30
rounds in which 2 of 6 blocks are applied. The table has for every arm: perplexity on the global test, its
gain over random seed by seed, and the steadiness of the ranking from one targeted round to the next (`fedtlu
history`). The runs stay in RUNS; finished ones are not run again. About 13 minutes of one core.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from fedtlu_fast import RunConfig, load_config
from fedtlu_fast.experiments.arms import Arm, run_arm
from fedtlu_fast.report.aggregate.history import read_history
from fedtlu_fast.runs.results import read_arm

WARMUP, TARGETED = 40, 30
SETTINGS = [
    f"rounds={WARMUP + TARGETED}",
    f"warmup_rounds={WARMUP}",
    "training.local_steps=6",
    "evaluation.every=10",
    "evaluation.local_every=1000",
    "evaluation.trained_clients=0",
    "executor=serial",
]
ARMS = {
    "full": ("full", "excess", "mean"),
    "random": ("random", "excess", "mean"),
    "first": ("first", "excess", "mean"),
    **{
        f"{metric}, {pooling}": ("fedtlu", metric, pooling)
        for metric in ("excess", "l2_per_parameter", "relative_change", "agreement")
        for pooling in ("mean", "pooled")
    },
}
"""Name -> selector, metric, pooling."""
BASELINE = "random"


def config_of(arm: str, seed: int) -> RunConfig:
    """Returns the settings of one arm."""
    selector, metric, pooling = ARMS[arm]
    chosen = [f"selector={selector}", f"metric={metric}", f"pooling={pooling}", f"seed={seed}"]
    return load_config("quickstart", overrides=[*SETTINGS, *chosen])


def path_of(arm: str, seed: int, runs: Path) -> Path:
    """Returns the directory of an arm's run."""
    return runs / f"{arm.replace(', ', '-')}-seed{seed}"


def arms_of(seed: int, runs: Path) -> list[Arm]:
    """Returns the warm-up of a seed, and the arms that start from it."""
    shared = runs / f"warmup-seed{seed}"
    found = [Arm(shared.name, config_of("full", seed), shared, WARMUP, summarise=False)]
    for name in ARMS:
        path = path_of(name, seed, runs)
        found.append(Arm(path.name, config_of(name, seed), path, WARMUP + TARGETED, shared))
    return found


def row(arm: str, paths: Sequence[Path], baseline: Sequence[float]) -> dict[str, Any]:
    """Makes a row of the table: one arm with all its seeds."""
    perplexities = [read_arm(path).summary["test_perplexity"] for path in paths]
    gains = [100 * (other - own) / other for own, other in zip(perplexities, baseline, strict=True)]
    histories = [read_history(path)[1] for path in paths]
    first = [next(row for row in history.stability if row.lag == 1) for history in histories]
    far = [next(row for row in history.stability if row.lag == 10) for history in histories]
    kinds = [{row.kind: row for row in history.kinds} for history in histories]
    return {
        "arm": arm,
        **spread("perplexity", perplexities),
        **spread("gain_over_random_pct", gains),
        "gains_by_seed": " ".join(f"{gain:+.2f}" for gain in gains),
        **spread("tau_1", [row.tau.mean for row in first]),
        **spread("tau_10", [row.tau.mean for row in far]),
        **spread("overlap_1", [row.overlap.mean for row in first]),
        **spread("overlap_by_chance", [row.by_chance for row in first]),
        **spread("variance_from_matrices", [kind["matrix"].variance.mean for kind in kinds]),
        **spread("variance_from_norm_weights", [kind["norm weight"].variance.mean for kind in kinds]),
        **spread("tau_of_matrices_alone", [kind["matrix"].tau.mean for kind in kinds]),
    }


def spread(name: str, values: Sequence[float | None]) -> dict[str, float | None]:
    """Returns the mean and sample standard deviation over seeds; None if a run lacks the number."""
    known = [value for value in values if value is not None]
    return {
        name: float(f"{fmean(known):.6g}") if known else None,
        f"{name}_std": float(f"{stdev(known):.6g}") if len(known) > 1 else None,
    }


def show(rows: Sequence[dict[str, Any]], seeds: int) -> None:
    """Prints the table."""
    heads = {
        "perplexity": ".2f",
        "gain_over_random_pct": "+.2f",
        "tau_1": "+.2f",
        "tau_10": "+.2f",
        "overlap_1": ".2f",
        "variance_from_matrices": ".2f",
        "variance_from_norm_weights": ".2f",
        "tau_of_matrices_alone": "+.2f",
    }
    table = Table(title=f"{WARMUP} warm-up and {TARGETED} targeted rounds, {seeds} seeds: mean ± std")
    for head in ("arm", *heads):
        table.add_column(head.replace("_", " "), justify="left" if head == "arm" else "right")
    for line in rows:
        cells = []
        for name, form in heads.items():
            mean, std = line[name], line[f"{name}_std"]
            shown = "" if std is None else f" ± {std:{form.removeprefix('+')}}"
            cells.append("-" if mean is None else f"{mean:{form}}{shown}")
        table.add_row(line["arm"], *cells)
    Console(width=180).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="directory for the runs; finished runs in it are reused")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0")
    parser.add_argument("--out", type=Path, help="CSV file to write")
    options = parser.parse_args()
    seeds = range(options.seeds)
    every = [arm for seed in seeds for arm in arms_of(seed, options.runs)]
    for arm in track(every, description="runs", console=Console(stderr=True)):
        run_arm(arm)
    paths = {name: [path_of(name, seed, options.runs) for seed in seeds] for name in ARMS}
    baseline = [read_arm(path).summary["test_perplexity"] for path in paths[BASELINE]]
    rows = [row(name, own, baseline) for name, own in paths.items()]
    show(rows, len(seeds))
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
