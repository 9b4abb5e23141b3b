"""Runs Flower's simulation on Ray: the message API (ServerApp, ClientApp) or the older start_simulation."""
# ruff: noqa: E402  (the clock starts before the imports that it measures)

import os
import sys
import time
from pathlib import Path

STARTED = time.perf_counter()
sys.path.append(str(Path(__file__).resolve().parents[3] / "fedtlu_fast/profiling"))

from federations import harness

args = harness.arguments(["message", "legacy"], parallel=("message", "legacy"))
report = harness.Report("flower", args, STARTED)
# Nothing is sent anywhere, and Ray's workers find our modules.
os.environ.update(
    FLWR_TELEMETRY_ENABLED="0",
    RAY_USAGE_STATS_ENABLED="0",
    PYTHONPATH=os.pathsep.join(filter(None, [sys.path[0], sys.path[-1], os.environ.get("PYTHONPATH")])),
)

import random
from importlib.metadata import version

import ray  # noqa: F401
import torch
from client import make_client_app, make_client_fn
from federations.workloads.choose import import_model, workload
from flwr.app import ArrayRecord
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerConfig
from flwr.server.strategy import FedAvg as LegacyFedAvg
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation, start_simulation

import_model(args.workload)
report.imported()

RESOURCES = {"num_cpus": 1, "num_gpus": 0.0}
OWN = {"address": "local"}  # never a cluster that already runs on this machine


class Complete:
    """Ends the run if a client fails; both APIs would continue with the remaining clients."""

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        self.expect([reply for reply in replies if not reply.has_error()])
        return super().aggregate_train(server_round, replies)

    def aggregate_fit(self, server_round, results, failures):
        self.expect(results)
        return super().aggregate_fit(server_round, results, failures)

    def expect(self, answers):
        if len(answers) != self.cohort:
            raise RuntimeError(f"{len(answers)} of {self.cohort} clients answered")


class Strategy(Complete, FedAvg):
    pass


class LegacyStrategy(Complete, LegacyFedAvg):
    pass


def mark(server_round):
    """Marks a round on the clock; Flower evaluates the model before the first round and after each."""
    if server_round == 0:
        report.begin()
    else:
        report.end_round()


def run_messages(work):
    strategy = Strategy(
        fraction_train=work.cohort / work.clients,
        fraction_evaluate=0.0,
        min_train_nodes=work.cohort,
        min_available_nodes=work.clients,
    )
    strategy.cohort = work.cohort
    found = {}
    server = ServerApp()

    @server.main()
    def serve(grid, context):
        result = strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(work.sent(work.model())),
            num_rounds=args.rounds,
            timeout=36_000,
            evaluate_fn=lambda server_round, arrays: mark(server_round),
        )
        found.update(result.arrays.to_torch_state_dict())

    run_simulation(
        server_app=server,
        client_app=make_client_app(work, args.threads),
        num_supernodes=work.clients,
        backend_config={"client_resources": RESOURCES, "init_args": {**OWN, "num_cpus": args.workers}},
    )
    return found


def run_legacy(work):
    found = {}
    names = work.sent(work.model())

    def evaluate(server_round, arrays, config):
        mark(server_round)
        if server_round == args.rounds:
            pairs = zip(names, arrays, strict=True)
            found.update((name, torch.from_numpy(value.copy())) for name, value in pairs)

    strategy = LegacyStrategy(
        fraction_fit=work.cohort / work.clients,
        fraction_evaluate=0.0,
        min_fit_clients=work.cohort,
        min_evaluate_clients=0,
        min_available_clients=work.clients,
        evaluate_fn=evaluate,
        initial_parameters=ndarrays_to_parameters([value.numpy() for value in names.values()]),
    )
    strategy.cohort = work.cohort
    start_simulation(
        client_fn=make_client_fn(work, args.threads),
        num_clients=work.clients,
        client_resources=RESOURCES,
        config=ServerConfig(num_rounds=args.rounds),
        strategy=strategy,
        ray_init_args={**OWN, "num_cpus": args.workers, "include_dashboard": False},
    )
    return found


def main():
    random.seed(args.seed)
    work = workload(args.workload, args.clients, args.cohort, args.seed)
    state = run_messages(work) if args.mode == "message" else run_legacy(work)
    model = work.model()
    model.load_state_dict(state, strict=False)
    report.finish(work, model, version("flwr"))


main()
