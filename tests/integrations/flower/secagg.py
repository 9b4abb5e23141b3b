"""FedTLU for Flower's older API: secagg.py KIND OUT.npz.

KIND is ``masked`` (under Flower's SecAgg+) or ``plain``. Clients and model are those of federation.py.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import torch
from flwr.client import ClientApp, NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.common import Context, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import Grid, LegacyContext, ServerApp, ServerConfig
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.simulation import run_simulation
from torch import nn

from fedtlu_fast.integrations.flower.legacy import FedTLU

SCRIPT = Path(__file__).with_name("federation.py")
spec = importlib.util.spec_from_file_location("flower_federation", SCRIPT)
federation = importlib.util.module_from_spec(spec)
spec.loader.exec_module(federation)

ROUNDS, CLIPPING, TARGET, MAX_WEIGHT = 3, 4.0, 2**22, 64.0


def numbers(model: nn.Module) -> list[np.ndarray]:
    return [tensor.numpy() for tensor in model.state_dict().values()]


class Client(NumPyClient):
    def __init__(self, number: int) -> None:
        self.number = number

    def fit(self, parameters, config):
        torch.set_num_threads(1)
        model = federation.net()
        names = model.state_dict()
        model.load_state_dict(dict(zip(names, map(torch.from_numpy, parameters), strict=True)))
        optimizer = torch.optim.SGD(model.parameters(), lr=federation.LR)
        inputs, targets = federation.samples(self.number)
        for _ in range(federation.STEPS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        return numbers(model), len(inputs), {}


class Noting(FedTLU):
    """Notes what arrives from each client, and the global model of every round."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        self.arrived, self.models, self.rows = [], [], []

    def aggregate_fit(self, server_round, results, failures):
        self.arrived.append([parameters_to_ndarrays(result.parameters) for _, result in results])
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        self.models.append(parameters_to_ndarrays(parameters))
        self.rows.append(metrics)
        return parameters, metrics


def main(kind: str, out: Path) -> None:
    server = ServerApp()

    @server.main()
    def run(grid: Grid, context: Context) -> None:
        clients = federation.CLIENTS
        strategy = Noting(
            model=federation.net(),
            granularity="module",
            keep=2,
            fraction_evaluate=0.0,
            min_fit_clients=clients,
            min_available_clients=clients,
            initial_parameters=ndarrays_to_parameters(numbers(federation.net())),
        )
        legacy = LegacyContext(context=context, config=ServerConfig(num_rounds=ROUNDS), strategy=strategy)
        fit = SecAggPlusWorkflow(
            num_shares=3,
            reconstruction_threshold=2,
            max_weight=MAX_WEIGHT,
            clipping_range=CLIPPING,
            quantization_range=TARGET,
        )
        DefaultWorkflow(fit_workflow=fit if kind == "masked" else None)(grid, legacy)
        arrays = {f"model/{index}": array for index, array in enumerate(strategy.models[-1])}
        for client, arrived in enumerate(strategy.arrived[-1]):
            arrays |= {f"client/{client}/{index}": array for index, array in enumerate(arrived)}
        np.savez(out, **arrays)
        out.with_suffix(".json").write_text(json.dumps(strategy.rows))

    mods = [secaggplus_mod] if kind == "masked" else []
    app = ClientApp(lambda context: Client(int(context.node_config["partition-id"])).to_client(), mods=mods)
    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(
        server_app=server, client_app=app, num_supernodes=federation.CLIENTS, backend_config=resources
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
