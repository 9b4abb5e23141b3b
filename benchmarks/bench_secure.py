"""Measures what secure aggregation by pairwise masks costs, beside plain aggregation.

    python benchmarks/bench_secure.py [--cohorts 10 100] [--sizes 100000 1000000] [--repeats 3] \\
        [--out benchmarks/results/secure.csv]

For every cohort and number of parameters: the seconds of one client (keys and shares; encoding and masking
its vector, the least of `repeats` clients), those of the server (unmasking when all clients sent, and when a
tenth was silent after the sharing of keys), and beside them the seconds in which the server adds one plain
float32 vector to its mean, measured in turns with the masking. Bytes are those of one client beside the model
that it receives; the factor compares what it sends with a float32 vector. About 20 seconds of one core.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from fedtlu_fast.aggregation import WeightedMean
from fedtlu_fast.secure.client import SecureClient
from fedtlu_fast.secure.fixed_point import FixedPoint
from fedtlu_fast.secure.messages import Masked, bytes_down, bytes_up
from fedtlu_fast.secure.secure_sum import SecureSum
from fedtlu_fast.secure.server import SecureServer

SILENT = 0.1


class Round:
    """A round after the sharing of keys."""

    def __init__(self, cohort: int) -> None:
        threshold = SecureSum(cohort).needed(cohort)
        self.server = SecureServer(threshold)
        self.clients = [SecureClient(number, threshold) for number in range(cohort)]
        began = time.perf_counter()
        keys = self.server.publish([client.advertise() for client in self.clients])
        sealed = [own for client in self.clients for own in client.share(keys)]
        for receiver, own in self.server.deliver(sealed).items():
            self.clients[receiver].keep(own)
        self.seconds = (time.perf_counter() - began) / cohort  # of one client

    def unmasking(self, silent: int, numbers: int, bits: int) -> float:
        """The server's seconds; what it unmasks are zeros, which take as long as masked vectors."""
        zeros = np.zeros(numbers, f"<u{bits // 8}")
        sending = self.clients[: len(self.clients) - silent]
        for client in range(len(sending)):
            self.server.add_(Masked(client, zeros))
        asked = self.server.ask()
        revealed = [client.reveal(asked) for client in sending]
        began = time.perf_counter()
        self.server.unmask(revealed)
        return time.perf_counter() - began


def measured(cohort: int, size: int, bits: int, repeats: int) -> dict[str, object]:
    draws = np.random.default_rng(0)
    change = (draws.standard_normal(size) / 100).astype(np.float32)
    form = FixedPoint(cohort, bits, largest_change=1.0, largest_weight=1024)
    begun = Round(cohort)
    mean, vector = WeightedMean(torch.zeros(size)), torch.from_numpy(change)
    masking, adding = [], []
    for client in begun.clients[:repeats]:
        began = time.perf_counter()
        client.mask(form.encode(change, 100.0))
        masking.append(time.perf_counter() - began)
        began = time.perf_counter()
        mean.add_(vector, 100.0)
        adding.append(time.perf_counter() - began)
    sent = bits // 8 * (size + 1) + bytes_up(cohort)
    return {
        "cohort": cohort,
        "parameters": size,
        "bits": bits,
        "client_keys_s": begun.seconds,
        "client_mask_s": min(masking),
        "server_unmask_s": begun.unmasking(0, size + 1, bits),
        "server_unmask_tenth_silent_s": Round(cohort).unmasking(round(SILENT * cohort), size + 1, bits),
        "plain_add_s": min(adding),
        "times_plain": (begun.seconds + min(masking)) / min(adding),
        "bytes_up": sent,
        "bytes_down": bytes_down(cohort),
        "bytes_factor": sent / (4 * size),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cohorts", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    measured(3, 1000, 64, 1)  # imports, and code that runs for the first time
    rows = [
        measured(cohort, size, bits, given.repeats)
        for cohort in given.cohorts
        for size in given.sizes
        for bits in (32, 64)
    ]
    table = Table(*rows[0], title=f"load {os.getloadavg()[0]:.1f}")
    for row in rows:
        table.add_row(*(f"{own:.4g}" if isinstance(own, float) else str(own) for own in row.values()))
    Console(width=200).print(table)
    if given.out is not None:
        with given.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(
                {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
            )


if __name__ == "__main__":
    main()
