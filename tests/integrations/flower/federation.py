"""A federation under Flower's simulation engine: federation.py KIND OUT.npz.

KIND is ``full``, ``subset`` (clients train and send one block of their own), ``stock`` (Flower's FedAvg) or
``trainer`` (the clients are those of `client_app`).
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import nn

from fedtlu_fast import Datasets, Local, SupervisedTask
from fedtlu_fast.integrations.flower import FedTLU, client_app, send_chosen_layers, train_chosen_layers_

CLIENTS, ROUNDS, STEPS, LR = 4, 5, 3, 0.1
LOCAL = Local("sgd", lr=LR, steps=STEPS, batch_size=100, clip_norm=None)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(part for _ in range(4) for part in (nn.Linear(16, 16), nn.Tanh())), nn.Linear(16, 3)
    )


def samples(client: int) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(client)
    inputs = torch.randn(30 + 10 * client, 16, generator=draws)
    return inputs, (inputs[:, client] > 0).long() + (inputs[:, 1] > 1).long()


app = ClientApp(mods=[send_chosen_layers])


@app.train()
def train(message: Message, context: Context) -> Message:
    torch.set_num_threads(1)
    model = net()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    train_chosen_layers_(model, message.content["config"])
    open_parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(open_parameters, lr=LR)
    inputs, targets = samples(int(context.node_config["partition-id"]))
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
    metrics = MetricRecord({"loss": float(loss), "num-examples": len(inputs)})
    return Message(
        RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message
    )


def main(kind: str, out: Path) -> None:
    server = ServerApp()

    @server.main()
    def run(grid: Grid, context: Context) -> None:
        common = {"fraction_evaluate": 0.0, "min_train_nodes": CLIENTS, "min_available_nodes": CLIENTS}
        ours = {"granularity": "module", "keep": 2}
        strategies = {
            "stock": lambda: FedAvg(**common),
            "full": lambda: FedTLU(**common, **ours),
            "trainer": lambda: FedTLU(**common, **ours),
            "subset": lambda: FedTLU(**common, **ours, client_selection="random", budget=1),
        }
        strategy = strategies[kind]()
        result = strategy.start(grid=grid, initial_arrays=ArrayRecord(net().state_dict()), num_rounds=ROUNDS)
        arrays = {name: array.numpy() for name, array in result.arrays.items()}
        metrics = [dict(record) for record in result.train_metrics_clientapp.values()]
        np.savez(out, **arrays)
        out.with_suffix(".json").write_text(json.dumps(metrics))

    clients = app
    if kind == "trainer":
        data = Datasets([samples(client) for client in range(CLIENTS)], samples(0))
        clients = client_app(SupervisedTask(net(), nn.functional.cross_entropy), data, local=LOCAL)
    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server_app=server, client_app=clients, num_supernodes=CLIENTS, backend_config=resources)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
