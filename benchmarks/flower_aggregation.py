"""Measures what a Flower server's round costs: FedTLU's `aggregate_train` beside that of Flower's FedAvg.

    python benchmarks/flower_aggregation.py [--clients 10] [--rounds 15] [--width 512] \\
        [--out benchmarks/results/flower-aggregation.csv]

Both get the same replies: a Transformer's arrays from each client, as Flower's messages hold them. The two
take turns, so that other work on the machine slows both down. Seconds are the least of all rounds; processor
seconds, of all threads, are the median and suffer less from other work. Memory is measured in a process for
each strategy, during its second round: how far the peak lies above what the process held before, which are
the replies, and FedTLU's own copy of the global model. Linux only.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy

from fedtlu_fast.integrations.flower import FedTLU

if find_spec("flwr.supercore.task_identity"):
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1

STRATEGIES: dict[str, Callable[..., Strategy]] = {"FedAvg of Flower": FedAvg, "FedTLU": FedTLU}


class Nodes:
    """A grid that only knows its nodes."""

    def __init__(self, clients: int) -> None:
        self._ids = range(1, clients + 1)

    def get_node_ids(self) -> Iterable[int]:
        return self._ids


def model(width: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a Transformer of six blocks."""
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (8 * width, width)}
    for block in range(6):
        for name, shape in (
            ("attention.in", (3 * width, width)),
            ("attention.out", (width, width)),
            ("feed.in", (4 * width, width)),
            ("feed.out", (width, 4 * width)),
        ):
            shapes[f"blocks.{block}.{name}.weight"] = shape
            shapes[f"blocks.{block}.{name}.bias"] = shape[:1]
    return shapes


def record(shapes: dict[str, tuple[int, ...]], seed: int) -> ArrayRecord:
    draws = np.random.default_rng(seed)
    return ArrayRecord(
        {n: Array(draws.standard_normal(shape, np.float32) / 100) for n, shape in shapes.items()}
    )


def replies(messages: list[Message], shapes: dict[str, tuple[int, ...]]) -> list[Message]:
    found = []
    for client, message in enumerate(messages, 1):
        metrics = MetricRecord({"num-examples": 100 + client, "loss": 1.0})
        content = RecordDict({"arrays": record(shapes, client), "metrics": metrics})
        found.append(Message(content, reply_to=message))
    return found


def begun(name: str, clients: int, start: ArrayRecord) -> tuple[Strategy, list[Message]]:
    """A strategy that has configured its first round, and the messages that it sends."""
    strategy = STRATEGIES[name](fraction_evaluate=0.0)
    return strategy, list(strategy.configure_train(1, start, ConfigRecord(), Nodes(clients)))


def memory(name: str, clients: int, width: int) -> float:
    """The peak of a round above what was held before it, in models."""
    shapes = model(width)
    size = 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    strategy, messages = begun(name, clients, record(shapes, 0))
    answers = replies(messages, shapes)
    strategy.aggregate_train(1, answers[:2])  # what is loaded and kept once
    held = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    strategy.aggregate_train(2, answers)
    return (status("VmHWM") - held) / size


def status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise KeyError(key)


def seconds(clients: int, rounds: int, width: int) -> dict[str, list[tuple[float, float]]]:
    """The seconds and processor seconds of each round by strategy; the strategies take turns."""
    shapes = model(width)
    start = record(shapes, 0)
    strategies = {name: begun(name, clients, start) for name in STRATEGIES}
    answers = replies(strategies["FedTLU"][1], shapes)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in STRATEGIES}
    for index in range(1, rounds + 2):
        for name, (strategy, _) in strategies.items():
            begin, used = time.perf_counter(), time.process_time()
            strategy.aggregate_train(index, answers)
            found[name].append((time.perf_counter() - begin, time.process_time() - used))
    return {name: times[1:] for name, times in found.items()}  # the first warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory-of", choices=list(STRATEGIES), help="print its peak in models and end")
    given = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    if given.memory_of:
        print(memory(given.memory_of, given.clients, given.width))
        return
    times = seconds(given.clients, given.rounds, given.width)
    parameters = sum(int(np.prod(shape)) for shape in model(given.width).values())
    rows = []
    for name, found in times.items():
        command = [sys.executable, __file__, "--memory-of", name, "--clients", str(given.clients)]
        command += ["--width", str(given.width)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
        rows.append(
            {
                "strategy": name,
                "parameters": parameters,
                "clients": given.clients,
                "seconds": round(min(wall for wall, _ in found), 3),
                "processor seconds": round(statistics.median(used for _, used in found), 3),
                "peak in models": round(float(done.stdout.split()[-1]), 2),
            }
        )
        print(rows[-1])
    if given.out is not None:
        with given.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
