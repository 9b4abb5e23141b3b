"""Runs BlazeFL's own FedAvg (blazefl.contrib) in one thread, a pool of threads or a pool of processes."""
# ruff: noqa: E402  (the clock starts before the imports that it measures)

import sys
import time
from pathlib import Path

STARTED = time.perf_counter()
sys.path.append(str(Path(__file__).resolve().parents[3] / "fedtlu_fast/profiling"))

from federations import harness

args = harness.arguments(["single", "threads", "processes"], parallel=("threads", "processes"))
report = harness.Report("blazefl", args, STARTED)

import resource
import tempfile
from importlib.metadata import version

import torch
from blazefl.contrib import (
    FedAvgBaseClientTrainer,
    FedAvgBaseServerHandler,
    FedAvgProcessPoolClientTrainer,
    FedAvgThreadPoolClientTrainer,
)
from blazefl.core import IPCMode
from federations.workloads.choose import import_model, workload

import_model(args.workload)
report.imported()


class Rows(torch.nn.Module):
    """Returns one row of logits per target, since BlazeFL's loss is CrossEntropyLoss as it comes."""

    def __init__(self, work):
        super().__init__()
        self.work, self.model = work, work.model()

    def state_dict(self):
        """Returns what is trained, since BlazeFL sends and averages all of this."""
        return self.work.sent(self.model)

    def forward(self, inputs):
        return self.model(inputs).flatten(0, -2)


class Models:
    def __init__(self, work):
        self.work = work

    def select_model(self, name):
        return Rows(self.work)


class Batches(list):
    """Stands in for a DataLoader, whose collation would cost more than the training of a small model."""

    dataset = None


class Data:
    def __init__(self, work):
        self.work = work

    def get_dataset(self, type_, cid):
        return None

    def set_dataset(self, type_, cid, dataset):
        """Does nothing, because clients' data do not change."""

    def get_dataloader(self, type_, cid, batch_size=None, generator=None):
        return Batches((inputs, targets.flatten()) for inputs, targets in self.work.batches(cid))


def make_trainer(work, scratch):
    common = {
        "model_selector": Models(work),
        "model_name": work.name,
        "dataset": Data(work),
        "device": "cpu",
        "num_clients": work.clients,
        "epochs": 1,
        "batch_size": work.settings.batch,
        "lr": work.settings.lr,
        "seed": args.seed,
    }
    if args.mode == "single":
        return FedAvgBaseClientTrainer(**common)
    if args.mode == "threads":
        return FedAvgThreadPoolClientTrainer(**common, num_parallels=args.workers)
    # Every client's buffer is an open file in this mode.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return FedAvgProcessPoolClientTrainer(
        **common,
        share_dir=scratch / "share",
        state_dir=scratch / "state",
        num_parallels=args.workers,
        ipc_mode=IPCMode.SHARED_MEMORY,
    )


def main():
    work = workload(args.workload, args.clients, args.cohort, args.seed)
    work.hold()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(work, Path(scratch))
        handler = FedAvgBaseServerHandler(
            model_selector=Models(work),
            model_name=work.name,
            dataset=Data(work),
            global_round=args.rounds,
            num_clients=work.clients,
            sample_ratio=work.cohort / work.clients,
            device="cpu",
            batch_size=work.settings.batch,
            seed=args.seed,
        )
        handler.num_clients_per_round = work.cohort  # the ratio can round it down by one
        report.begin()
        while not handler.if_stop():
            cohort = handler.sample_clients()
            trainer.local_process(handler.downlink_package(), cohort)
            for package in trainer.uplink_package():
                handler.load(package)
            report.end_round()
    report.finish(work, handler.model.model, version("blazefl"))


main()
