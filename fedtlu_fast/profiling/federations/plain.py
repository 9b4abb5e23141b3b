"""Runs a hand-written FedAvg loop in plain PyTorch."""
# ruff: noqa: E402  (the clock starts before the imports that it measures)

from __future__ import annotations

import time

STARTED = time.perf_counter()

import random

from fedtlu_fast.profiling.federations import harness

args = harness.arguments(["loop"])
report = harness.Report("plain", args, STARTED)

import torch
from torch import nn

from fedtlu_fast.profiling.federations.workloads.choose import import_model, workload
from fedtlu_fast.profiling.federations.workloads.protocol import Workload, loss

import_model(args.workload)
report.imported()


def _train_(model: nn.Module, work: Workload, client: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=work.settings.lr)
    for inputs, targets in work.batches(client):
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _round_(server: nn.Module, worker: nn.Module, work: Workload, cohort: list[int]) -> None:
    start = work.sent(server)
    total = {name: torch.zeros_like(value) for name, value in start.items()}
    weight = 0
    for client in cohort:
        worker.load_state_dict(start, strict=False)
        _train_(worker, work, client)
        samples = len(work.client(client)[0])
        for name, value in work.sent(worker).items():
            total[name] += samples * value
        weight += samples
    server.load_state_dict({name: value / weight for name, value in total.items()}, strict=False)


def main() -> None:
    """Runs the rounds."""
    work = workload(args.workload, args.clients, args.cohort, args.seed)
    work.hold()
    server, worker = work.model(), work.model()
    draw = random.Random(args.seed)
    report.begin()
    for _ in range(args.rounds):
        _round_(server, worker, work, draw.sample(range(work.clients), work.cohort))
        report.end_round()
    report.finish(work, server, torch.__version__)


main()
