"""Holds the parts that all compared simulators share: command line, clock and one line of JSON.

Like the workloads, this file is also imported by the rivals' scripts (``benchmarks/rivals``), whose
environments have torch but not this package: there `federations` is a package of its own, hence the relative
imports.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING

from .workloads import NAMES

if TYPE_CHECKING:
    from torch import nn

    from .workloads.protocol import Workload


def arguments(modes: list[str], parallel: tuple[str, ...] = ()) -> argparse.Namespace:
    """Parses the command line; ``--modes`` alone lists the modes.

    Args:
        modes: ways in which this simulator can train; the first is the default.
        parallel: the modes that train several clients in parallel.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if "--modes" in sys.argv:
        print(json.dumps(modes))  # noqa: T201  (what was asked for)
        sys.exit()
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--workload", choices=NAMES, required=True)
    parser.add_argument("--rounds", type=_positive, required=True)
    parser.add_argument("--clients", type=_positive)
    parser.add_argument("--cohort", type=_positive)
    parser.add_argument("--mode", choices=modes, default=modes[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=_positive, default=cores, help="in parallel modes")
    parser.add_argument("--threads", type=_positive, help="torch's threads in each worker")
    args = parser.parse_args()
    if args.mode not in parallel:
        args.workers = 1
    # The best setting for every rival: a second thread slows operations down that are as small as those of
    # mlp and lstm.
    small = args.workload in ("mlp", "lstm")
    args.threads = args.threads or (1 if small else max(1, cores // args.workers))
    return args


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, got {text}")
    return number


class Report:
    """Times the rounds and prints the result. All other output to stdout goes to stderr from here on."""

    def __init__(self, system: str, arguments: argparse.Namespace, started: float) -> None:
        self.system, self.arguments, self.started = system, arguments, started
        self.rounds: list[float] = []
        # Redirects the file descriptor, because worker processes and C++ code write to it too.
        sys.stdout.flush()
        self._stdout = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def imported(self) -> None:
        """Notes that imports are done and building begins."""
        import torch

        torch.set_num_threads(self.arguments.threads)
        self._built_from = time.perf_counter()

    def begin(self) -> None:
        """Notes that everything is built and the first round begins."""
        self._round_from = time.perf_counter()

    def end_round(self) -> None:
        """Notes that a round is over and the next begins."""
        now = time.perf_counter()
        if not self.rounds:
            self._first = now - self._built_from
        self.rounds.append(now - self._round_from)
        self._round_from = now

    def finish(self, work: Workload, model: nn.Module, version: str) -> None:
        """Prints the line of JSON.

        Args:
            work: the workload.
            model: the global model after the last round.
            version: the simulator's version.
        """
        wanted = self.arguments.rounds
        if len(self.rounds) != wanted:
            sys.exit(f"{self.system}: {wanted} rounds were asked for, {len(self.rounds)} were run")
        line = {
            "system": self.system,
            "mode": self.arguments.mode,
            "version": version,
            "workload": work.name,
            "clients": work.clients,
            "cohort": work.cohort,
            "rounds": wanted,
            "workers": self.arguments.workers,
            "threads": self.arguments.threads,
            "import_seconds": round(self._built_from - self.started, 6),
            "first_round_seconds": round(self._first, 6),
            "round_seconds": [round(seconds, 6) for seconds in self.rounds],
            "loss_before": round(work.test_loss(work.model()), 6),
            "loss_after": round(work.test_loss(model), 6),
        }
        print(json.dumps(line), file=self._stdout, flush=True)
