"""FedTLU for Flower's older API, without its engine; `.ci/flower` runs these tests."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import fedtlu_fast as ft
from fedtlu_fast import InputError
from fedtlu_fast.privacy.private_mean import PrivateMean

flwr = pytest.importorskip("flwr.common", reason="needs Flower")
from fedtlu_fast.integrations.flower.legacy import FedTLU  # noqa: E402


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)), nn.Linear(4, 2))


class Manager:
    def num_available(self):
        return 2

    def sample(self, num_clients, min_num_clients=None):
        return [SimpleNamespace(cid=str(client)) for client in range(num_clients)]


def numbers(model):
    return [tensor.numpy() for tensor in model.state_dict().values()]


def fitted(start, client, samples):
    draws = np.random.default_rng(client)
    arrays = [(array + draws.normal(0, 0.1, array.shape)).astype("f4") for array in start]
    status = flwr.Status(flwr.Code.OK, "")
    result = flwr.FitRes(status, flwr.ndarrays_to_parameters(arrays), samples, {})
    return arrays, (SimpleNamespace(cid=str(client)), result)


def test_a_round_applies_the_mean_in_the_best_blocks_whatever_the_order_of_arrival():
    start, found = numbers(net()), []
    for order in (slice(None), slice(None, None, -1)):
        strategy = FedTLU(model=net(), granularity="module", keep=1, min_fit_clients=2)
        assert len(strategy.configure_fit(1, flwr.ndarrays_to_parameters(start), Manager())) == 2
        one, first = fitted(start, 1, 10)
        two, second = fitted(start, 2, 30)
        parameters, metrics = strategy.aggregate_fit(1, [first, second][order], [])
        found.append(flwr.parameters_to_ndarrays(parameters))
    for after, again in zip(*found, strict=True):
        np.testing.assert_array_equal(after, again)
    scores = [metrics[f"score/{block}"] for block in range(3)]
    best = int(np.argmax(scores))
    assert metrics["chosen"] == f"{best},3"
    for index, after in enumerate(found[0]):
        mean = (10 * one[index] + 30 * two[index]) / 40
        expected = mean if index // 2 in (best, 3) else start[index]
        np.testing.assert_allclose(after, expected, atol=1e-6)


def test_names_are_needed_and_must_fit():
    with pytest.raises(InputError, match=r"names: got None.*Pass model="):
        FedTLU()
    strategy = FedTLU(names=["one.weight"])
    with pytest.raises(InputError, match="one for each of the 8 arrays"):
        strategy.configure_fit(1, flwr.ndarrays_to_parameters(numbers(net())), Manager())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aggregation": "median"}, r"aggregation: got 'Median'; expected mean under SecAgg\+"),
        ({"privacy": PrivateMean(1.0, 2)}, r"privacy: got 'PrivateMean'; expected None under SecAgg\+"),
        ({"selection": ft.FedTLU(metric="agreement")}, r"selection: got .* asks for client_norms"),
    ],
)
def test_parts_that_need_single_clients_are_refused_where_all_results_are_the_mean(settings, message):
    start = numbers(net())
    strategy = FedTLU(model=net(), granularity="module", min_fit_clients=2, **settings)
    strategy.configure_fit(1, flwr.ndarrays_to_parameters(start), Manager())
    (_, first), (_, second) = fitted(start, 1, 10), fitted(start, 2, 30)
    second[1].parameters = first[1].parameters
    with pytest.raises(InputError, match=message):
        strategy.aggregate_fit(1, [first, second], [])
