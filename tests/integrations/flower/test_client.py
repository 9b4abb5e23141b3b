"""Our trainers as a ClientApp, without Flower's engine; `.ci/flower` runs these tests."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fedtlu_fast import Datasets, Federation, InputError, Local, SupervisedTask

pytest.importorskip("flwr.app", reason="needs Flower, see docs/guides/flower.md")
from support.flower_messages import message

from fedtlu_fast.integrations.flower import client_app
from fedtlu_fast.integrations.flower.chosen_layers import CHOSEN

LOCAL = Local("adamw", lr=0.01, steps=4, batch_size=5)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)
    )


def samples(client: int, size: int = 17) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(client)
    inputs = torch.randn(size + client, 6, generator=draws)
    return inputs, (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()


def task() -> SupervisedTask:
    return SupervisedTask(net(), cross_entropy)


DATA = Datasets(
    [samples(client) for client in range(3)], samples(9), [samples(client) for client in range(3)]
)


def asked(app, client, kind="train", round_index=1, config=None, model=None):
    arrays = {name: tensor.numpy() for name, tensor in (model or net()).state_dict().items()}
    sent = message(arrays, {"server-round": round_index, **(config or {})}, kind=kind)
    return app(sent, SimpleNamespace(node_config={"partition-id": client})).content


def vector(record, names):
    return np.concatenate([record[name].numpy().ravel() for name in names])


def test_clients_train_to_the_bits_of_a_simulation():
    changes = []

    def kept(updates, weights):
        changes.append((updates.clone(), weights.clone()))
        return updates.mean(dim=0)

    parts = {"local": LOCAL, "aggregation": kept, "selection": "full", "granularity": "tensor"}
    Federation(task(), DATA, cohort=3, seed=5, executor="serial", **parts).run(1)
    ((updates, weights),) = changes
    app = client_app(task(), DATA, local=LOCAL, seed=5)
    names = [name for name, _ in net().named_parameters()]
    start = np.concatenate([parameter.detach().numpy().ravel() for parameter in net().parameters()])
    for client in (2, 0, 1):  # the order does not matter
        content = asked(app, client)
        (record,), (metrics,) = content.array_records.values(), content.metric_records.values()
        assert list(record) == list(net().state_dict())
        row = weights.tolist().index(metrics["num-examples"])  # no two clients hold as many
        np.testing.assert_array_equal(vector(record, names) - start, updates[row].numpy())
        assert 0 < metrics["train-loss"] < 2


def test_clients_train_and_send_only_what_the_server_has_chosen():
    app = client_app(task(), DATA, local=LOCAL)
    chosen = ["3.weight", "3.bias", "1.running_mean"]
    (record,) = asked(app, 0, config={CHOSEN: chosen}).array_records.values()
    assert list(record) == chosen
    start = net().state_dict()
    for name in chosen:
        assert not np.array_equal(record[name].numpy(), start[name].numpy()), name
    # Everything is trained again when the server chooses nothing.
    (record,) = asked(app, 0).array_records.values()
    assert not np.array_equal(record["0.weight"].numpy(), start["0.weight"].numpy())


def test_the_servers_proximal_mu_holds_clients_back():
    def moved(config):
        app = client_app(task(), DATA, local=Local("sgd", lr=0.1, steps=20))
        (record,) = asked(app, 0, config=config).array_records.values()
        return np.abs(record["0.weight"].numpy() - net().state_dict()["0.weight"].numpy()).max()

    assert moved({"proximal-mu": 5.0}) < 0.5 * moved({})


def test_clients_test_the_global_model_on_their_own_samples():
    (metrics,) = asked(client_app(task(), DATA), 1, "evaluate").metric_records.values()
    model = net().eval()
    inputs, targets = samples(1)
    assert metrics["num-examples"] == len(targets)
    assert metrics["loss"] == pytest.approx(cross_entropy(model(inputs), targets).item(), rel=1e-5)


def test_what_does_not_fit_is_refused_by_name():
    app = client_app(task(), DATA)
    with pytest.raises(InputError, match=r"partition-id: got 3.*below 3.*--node-config"):
        asked(app, 3)
    with pytest.raises(InputError, match=r"arrays: got .0.bias on one side only"):
        asked(app, 0, model=nn.Sequential(nn.Linear(6, 3, bias=False)))
    with pytest.raises(InputError, match="data: got"):
        client_app(task(), [1, 2])
