"""Measures how the simulation scales with the population, the cohort and the workers, and beside a busy core.

    python benchmarks/scaling.py [--parts population,workers] [--out benchmarks/results]

Each part prints a table and writes ``scaling-PART.csv``; ``aggregation`` also draws a picture,
``docs/results/scaling.png``.
Each run is a separate process, one after another; times are medians.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from fedtlu_fast.profiling.footprint import run_measured

ENVIRONMENT = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONSAFEPATH": "1"}


def run(code: str, **values: object) -> dict:
    """Runs Python code in a separate process, and returns its last line, which is JSON."""
    filled = "\n".join(f"{name} = {value!r}" for name, value in values.items()) + "\n" + code
    ended = run_measured([sys.executable, "-c", filled], ENVIRONMENT, 3600)
    if ended.code:
        raise SystemExit(ended.err)
    return {"peak_mb": ended.peak_bytes / 1e6} | json.loads(ended.out.splitlines()[-1])


ROUNDS = """
import json, time
import torch
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.build.run import open_run
imported = time.perf_counter()
seconds = []
run = open_run(parse_config(settings), callbacks=[lambda row: seconds.append(row["seconds"])])
started = time.perf_counter()
run.advance(rounds)
first = started - imported + seconds[0]
run.close()
print(json.dumps({"start_seconds": started - imported, "first_round_seconds": first,
                  "round_seconds": seconds[1:], "sha": run.state.sha256()}))
"""


def small(**over: object) -> dict:
    """Returns a small MLP on clients by rule, without tests."""
    tree = {
        "task": "classification",
        "rounds": 10**6,
        "cohort": 1000,
        "data": {"source": "synthetic", "synthetic": {"features": 64, "fewest": 25, "most": 25}},
        "training": {"lr": 0.1, "batch_size": 10, "local_steps": 2, "clip_norm": None},
        "selection": {"selector": "full"},
        "evaluation": {"every": 10**6, "local_every": 10**6, "trained_clients": 0},
        "execution": {"executor": "processes", "workers": 2, "clients_per_batch": 250},
    }
    return tree | over


def population() -> list[dict]:
    """Measures the same cohort drawn from more and more clients."""
    found: dict[int, list[dict]] = {}
    for _ in range(3):
        for clients in (1000, 10_000, 100_000, 1_000_000):
            found.setdefault(clients, []).append(run(ROUNDS, settings=small(clients=clients), rounds=12))
    return [
        {
            "clients": clients,
            "cohort": 1000,
            "seconds_per_round": median(s for result in results for s in result["round_seconds"]),
            "start_seconds": median(result["start_seconds"] for result in results),
            "first_round_seconds": median(result["first_round_seconds"] for result in results),
            "peak_mb": median(result["peak_mb"] for result in results),
        }
        for clients, results in found.items()
    ]


AGGREGATION = """
import json, resource, time
import torch
from fedtlu_fast.aggregation import WeightedMean
from fedtlu_fast.profiling.shapes import SHAPES
from fedtlu_fast.scoring import score_layers
from fedtlu_fast.scoring import layer_stats
layout = SHAPES[shape].layout()
torch.manual_seed(0)
base = torch.randn(layout.size) * 0.02
# A few vectors that stand for all clients': making 100,000 would take longer than adding them up.
clients = [base + 1e-3 * torch.randn(layout.size) for _ in range(3)]
began = time.perf_counter()
mean = WeightedMean(base)
for client in range(cohort):
    mean.add_(clients[client % 3], 20 + client % 7)
change = mean.change()
added = time.perf_counter()
scores = score_layers(layer_stats(change, layout))
scored = time.perf_counter()
# The system's own record of the peak: between two readings from outside a short one could be missed.
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
print(json.dumps({"parameters": layout.size, "aggregation": added - began, "scoring": scored - added,
                  "peak_mb": peak}))
"""


def aggregation() -> list[dict]:
    """Answers the paper's third question: time, memory and bytes of aggregation and scoring."""
    rows = []
    for shape, cohorts in (
        ("transformer-6", (100, 500, 1000, 10_000, 100_000)),
        ("gpt2", (100, 1000, 10_000)),
    ):
        for cohort in cohorts:
            found = run(AGGREGATION, shape=shape, cohort=cohort)
            rows.append(
                {
                    "shape": shape,
                    "parameters": found["parameters"],
                    "clients": cohort,
                    "aggregation_seconds": found["aggregation"],
                    "scoring_seconds": found["scoring"],
                    "scoring_share": found["scoring"] / (found["aggregation"] + found["scoring"]),
                    "bytes_received": 4 * found["parameters"] * cohort,
                    "bytes_moved_aggregation": 12 * found["parameters"] * cohort,
                    "bytes_moved_scoring": 4 * found["parameters"],
                    "peak_mb": found["peak_mb"],
                }
            )
            print(rows[-1], flush=True)
    return rows


def cohort() -> list[dict]:
    """Measures whole rounds with larger and larger cohorts of a million clients."""
    rows = []
    for size in (100, 1000, 10_000, 100_000):
        found = run(ROUNDS, settings=small(clients=1_000_000, cohort=size), rounds=4 if size > 10_000 else 8)
        seconds = median(found["round_seconds"])
        rows.append(
            {
                "cohort": size,
                "seconds_per_round": seconds,
                "clients_per_second": size / seconds,
                "peak_mb": found["peak_mb"],
            }
        )
    return rows


def language(workers: int, **over: object) -> dict:
    """Returns a GPT-2 of a million parameters on text: bound by arithmetic."""
    return {
        "rounds": 10**6,
        "clients": 100,
        "cohort": 10,
        "model": {"layers": 4, "width": 128, "heads": 4},
        "training": {"lr": 0.1, "batch_size": 16, "local_steps": 5, "clip_norm": None},
        "evaluation": {"every": 10**6, "local_every": 10**6, "trained_clients": 0},
        "execution": {
            "executor": "processes" if workers > 1 else "serial",
            "workers": workers,
            "clients_per_batch": 1,
        },
    } | over


def workers() -> list[dict]:
    """Measures one worker and two, on work that is bound by arithmetic."""
    found: dict[int, list[dict]] = {1: [], 2: []}
    for _ in range(4):
        for number, results in found.items():
            results.append(run(ROUNDS, settings=language(number), rounds=5))
    if len({result["sha"] for results in found.values() for result in results}) > 1:
        raise SystemExit("one worker and two gave other bits")
    times = {
        number: median(s for r in results for s in r["round_seconds"]) for number, results in found.items()
    }
    return [
        {"workers": number, "seconds_per_round": seconds, "speedup": times[1] / seconds}
        for number, seconds in times.items()
    ]


SPIN = "while True: pass"


def busy() -> list[dict]:
    """Measures the same job alone, and beside a process that never sleeps."""
    jobs = {"gpt, 2 workers": language(2), "mlp, 2 workers": small(clients=10_000)}
    rows = []
    for name, settings in jobs.items():
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(3):
            for disturbed, seconds in times.items():
                other = subprocess.Popen([sys.executable, "-c", SPIN]) if disturbed else None
                try:
                    found = run(ROUNDS, settings=settings, rounds=6 if name.startswith("gpt") else 40)
                finally:
                    if other is not None:
                        other.kill()
                        other.wait()
                seconds += found["round_seconds"]
        alone, beside = median(times[False]), median(times[True])
        rows.append({"job": name, "alone": alone, "beside_a_busy_core": beside, "ratio": beside / alone})
    return rows


PARTS = {part.__name__: part for part in (population, cohort, workers, busy, aggregation)}


def draw(rows: list[dict], path: Path) -> None:
    """Draws the time and memory of aggregation and scoring against the number of clients."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for shape, colour in (("transformer-6", "#1b6ca8"), ("gpt2", "#c1502e")):
        own = [row for row in rows if row["shape"] == shape]
        label = f"{shape} ({own[0]['parameters'] / 1e6:.0f}M)"
        clients = [row["clients"] for row in own]
        left.plot(
            clients,
            [row["aggregation_seconds"] for row in own],
            "o-",
            color=colour,
            label=f"{label}, aggregation",
        )
        left.plot(
            clients, [row["scoring_seconds"] for row in own], "s--", color=colour, label=f"{label}, scoring"
        )
        right.plot(clients, [row["peak_mb"] for row in own], "o-", color=colour, label=label)
    left.set(xscale="log", yscale="log", xlabel="clients in the round", ylabel="seconds")
    right.set(xscale="log", xlabel="clients in the round", ylabel="peak memory of the process, MB")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.legend(fontsize=7, frameon=False)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    for name in args.parts.split(","):
        began = time.perf_counter()
        rows = PARTS[name]()
        print(f"{name} ({time.perf_counter() - began:.0f} s)")
        for row in rows:
            print(
                "  "
                + ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
            )
        with (args.out / f"scaling-{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        if name == "aggregation":
            draw(rows, Path("docs/results/scaling.png"))


if __name__ == "__main__":
    main()
