"""Runs apple's pfl-research: FederatedAveraging on its SimulatedBackend, with a central SGD of rate 1."""
# ruff: noqa: E402  (the clock starts before the imports that it measures)

import os
import sys
import time
from pathlib import Path

STARTED = float(os.environ.get("RIVALS_STARTED") or time.perf_counter())
sys.path.append(str(Path(__file__).resolve().parents[3] / "fedtlu_fast/profiling"))

from federations import harness

args = harness.arguments(["simulated", "workers"], parallel=("workers",))
if args.mode == "workers" and "RANK" not in os.environ:
    # pfl's own way to use several cores: one process each, started by torchrun. The clock goes along.
    os.environ["RIVALS_STARTED"] = str(STARTED)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={args.workers}"]
    os.execv(sys.executable, [sys.executable, *launcher, __file__, *sys.argv[1:]])
report = harness.Report("pfl", args, STARTED)

import dataclasses
import random

import numpy as np
import torch
from federations.workloads.choose import import_model, workload
from federations.workloads.protocol import loss
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam.base import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from pfl.version import __version__

import_model(args.workload)
report.imported()


class Trainable(torch.nn.Module):
    """Wraps the model with the two methods that pfl calls."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def loss(self, inputs, targets):
        return loss(self.model(inputs), targets)

    def metrics(self, inputs, targets):
        raise NotImplementedError("no client is evaluated")


class TrainOnly(FederatedAveraging):
    """Leaves out the evaluation of every client before and after training, which iteration 0 always has."""

    def get_next_central_contexts(self, *arguments, **named):
        contexts, model, metrics = super().get_next_central_contexts(*arguments, **named)
        if contexts is not None:
            contexts = tuple(dataclasses.replace(context, do_evaluation=False) for context in contexts)
        return contexts, model, metrics


class Clock(TrainingProcessCallback):
    def on_train_begin(self, *, model):
        report.begin()
        return Metrics()

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        report.end_round()
        return False, Metrics()


def main():
    np.random.seed(args.seed)  # noqa: NPY002  (the generator that pfl draws its own seeds from)
    work = workload(args.workload, args.clients, args.cohort, args.seed)
    work.hold()
    module = Trainable(work.model())
    model = PyTorchModel(
        model=module,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(module.parameters(), lr=1.0),
    )
    order = random.Random(args.seed).sample(range(work.clients), work.clients)
    data = FederatedDataset(
        make_dataset_fn=lambda client: Dataset(raw_data=work.client(client), user_id=client),
        user_sampler=get_user_sampler("minimize_reuse", order),
    )
    TrainOnly().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=args.rounds,
            evaluation_frequency=args.rounds,
            train_cohort_size=work.cohort,
            val_cohort_size=None,
        ),
        backend=SimulatedBackend(training_data=data, val_data=data, postprocessors=[WeightByDatapoints()]),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1,
            local_learning_rate=work.settings.lr,
            local_batch_size=work.settings.batch,
        ),
        callbacks=[Clock()],
    )
    if os.environ.get("RANK", "0") == "0":
        report.finish(work, module.model, __version__)


main()
