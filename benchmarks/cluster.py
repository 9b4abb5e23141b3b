"""Measures what crosses between the nodes of a Ray cluster in a round, and the memory at its head.

    python benchmarks/cluster.py [--cohorts 36,720] [--out benchmarks/results]

Three nodes run on this machine, each with an object store of its own, as in Ray's own tests; a vector goes
from one to another through a socket, as between machines. Ray counts the bytes that every store takes in: the
global parameters once in a round, and the sum of each lane that the node trains; at the head, the sums of all
lanes. `vectors` are these bytes divided by the model's. The memory is the peak of the run's own process,
without the workers; each cohort runs in a process of its own. Every result is compared with the bits of a run
without Ray. It writes ``scaling-cluster.csv``.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from fedtlu_fast import simulate
from fedtlu_fast.executors.ray_cluster import ray

NODES, LANES, ROUNDS = 3, 12, 6
STORE_BYTES = 200 * 2**20
FEATURES, CLASSES, HIDDEN = 64, 10, (512, 512, 512, 512)


def settings(cohort: int, executor: str) -> dict:
    """Returns a perceptron of some 0.8 million parameters on clients by rule, without tests."""
    return {
        "task": "classification",
        "clients": 10 * cohort,
        "cohort": cohort,
        "rounds": ROUNDS,
        "warmup_rounds": 1,
        "data": {"source": "synthetic", "synthetic": {"features": FEATURES, "fewest": 20, "most": 20}},
        "model": {"hidden": list(HIDDEN)},
        "training": {"batch_size": 10, "local_steps": 1},
        "selection": {"selector": "full"},
        "evaluation": {"every": ROUNDS, "local_every": ROUNDS, "trained_clients": 0},
        "execution": {"executor": executor, "lanes": LANES},
    }


def stores() -> dict[str, int]:
    """Returns the bytes that the object store of each node has taken in so far; one is named "head"."""
    from ray._private.internal_api import node_stats

    head = ray.get_runtime_context().get_node_id()
    taken = {}
    for node in ray.nodes():
        answer = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], include_memory_info=False)
        name = "head" if node["NodeID"] == head else node["NodeID"]
        taken[name] = answer.store_stats.cumulative_created_bytes
    return taken


def measure(cohort: int, address: str) -> dict:
    """Runs one federation on the cluster and returns its row."""
    taken: list[dict[str, int]] = []

    def note(row: dict) -> None:
        taken.append(stores())

    result = simulate(settings(cohort, f"ray:{address}"), callbacks=[note])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    alone = simulate(settings(cohort, "serial"))
    # The last rounds: until all workers have started, some nodes have nothing to do.
    rounds = [{node: after[node] - before[node] for node in after} for before, after in pairwise(taken[2:])]
    size = 4 * sum(p.numel() for p in result.model.parameters())
    head = median(one["head"] for one in rounds)
    others = median(sum(bytes_ for node, bytes_ in one.items() if node != "head") for one in rounds)
    return {
        "cohort": cohort,
        "model_mb": size / 1e6,
        "head_mb": head / 1e6,
        "head_vectors": head / size,
        "others_mb": others / 1e6,
        "others_vectors": others / size,
        "head_peak_mb": peak / 1e6,
        "same_bits": result.summary["params_sha256"] == alone.summary["params_sha256"],
    }


def main() -> None:
    """Starts the nodes, measures every cohort in a process of its own, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cohorts", default="36,720")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--one", nargs=2, metavar=("COHORT", "ADDRESS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        torch.set_num_threads(1)
        print(json.dumps(measure(int(given.one[0]), given.one[1])))
        return
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    rows = []
    try:
        for _ in range(NODES - 1):
            cluster.add_node(**node)
        for cohort in given.cohorts.split(","):
            command = [sys.executable, __file__, "--one", cohort, cluster.address]
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(ended.stdout.splitlines()[-1]))
            print(", ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()), flush=True)
    finally:
        cluster.shutdown()
    with (given.out / "scaling-cluster.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in rows)


if __name__ == "__main__":
    main()
