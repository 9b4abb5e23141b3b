"""`aggregate` with a layout: names, shapes and statistics; the arithmetic is tested with the ops."""

import numpy as np
import pytest
import torch
from torch import nn

from fedtlu_fast import InputError, ParameterLayout, aggregate, layer_stats
from fedtlu_fast.aggregation import WeightedMean
from fedtlu_fast.ops import dispatch


@pytest.fixture
def layout():
    return ParameterLayout.from_module(nn.Sequential(nn.Linear(30, 20), nn.LayerNorm(20), nn.Linear(20, 3)))


@pytest.fixture
def clients(layout, generator):
    return torch.randn(7, layout.size, generator=generator)


def same(left, right):
    assert left.names == right.names
    for name in ("count", "mean", "std", "l2", "abs_max", "nonfinite"):
        assert torch.equal(getattr(left, name), getattr(right, name)), name


def test_statistics_describe_the_change_and_every_client(layout, clients):
    found = aggregate(clients, [1 / 7] * 7, layout, client_stats=True, backend="reference")
    torch.testing.assert_close(found.change, clients.mean(dim=0))
    same(found.stats, layer_stats(found.change, layout, backend="reference"))
    assert found.client_stats.std.shape == (7, len(layout.names))
    assert len(found.client_stats) == len(layout.names)
    for index, client in enumerate(clients):
        alone = layer_stats(client, layout, backend="reference")
        for name in ("count", "mean", "std", "l2", "abs_max", "nonfinite"):
            assert torch.equal(getattr(found.client_stats, name)[index], getattr(alone, name)), name
    assert aggregate(clients, [1 / 7] * 7, layout).client_stats is None


def test_agrees_with_the_running_mean(layout, clients, generator):
    base = torch.randn(layout.size, generator=generator)
    samples = [3, 1, 4, 1, 5, 9, 2]
    mean = WeightedMean(base)
    for client, count in zip(clients, samples, strict=True):
        mean.add_(client, count)
    found = aggregate(list(clients), [count / 25 for count in samples], layout, base=base)
    torch.testing.assert_close(found.change, mean.change(), rtol=1e-6, atol=1e-6)


def test_sample_counts_and_shares_give_the_same_mean(layout, clients):
    samples = [3, 1, 4, 1, 5, 9, 2]
    expected = aggregate(clients, [count / 25 for count in samples], layout, normalize=False)
    for weights in (
        samples,
        [float(x) for x in samples],
        np.array(samples),
        torch.tensor(samples),
        iter(samples),
    ):
        found = aggregate(clients, weights, layout)
        assert torch.equal(found.change, expected.change)
        same(found.stats, expected.stats)
    total = aggregate(clients, samples, layout, normalize=False)
    torch.testing.assert_close(total.change, 25 * expected.change)


@pytest.mark.parametrize("weights", [[1e308, 1e308], [5e-324, 5e-324], [2**60, 2**60], [1, 1], [0.5, 0.5]])
def test_equal_weights_of_any_size_give_the_mean(layout, clients, weights):
    found = aggregate(clients[:2], weights, layout)
    assert torch.equal(found.change, aggregate(clients[:2], [0.5, 0.5], layout, normalize=False).change)


@pytest.mark.parametrize("weights", [[0, 0], [1, -1], [-0.5, 1.5], [1, float("nan")], [1, float("inf")], [1]])
def test_weights_without_a_mean_are_refused(layout, clients, weights):
    with pytest.raises(InputError, match="weights"):
        aggregate(clients[:2], weights, layout)
    if weights[-1] in (0, -1, 1.5):
        assert aggregate(clients[:2], weights, layout, normalize=False).change.isfinite().all()


def test_clients_may_be_given_as_any_iterable(layout, clients):
    expected = aggregate(clients, [1] * 7, layout).change
    named = dict(enumerate(clients))
    for given in (list(clients), tuple(clients), (client for client in clients), named.values()):
        assert torch.equal(aggregate(given, [1] * 7, layout).change, expected)
    for given in (named, [], "clients", None, 3, layout, [[1.0]], torch.ones(3)):
        with pytest.raises(InputError, match="clients"):
            aggregate(given, [1], layout)
    with pytest.raises(InputError, match=r"clients\[0\]: got 'ndarray'; .*Give torch.from_numpy"):
        aggregate([np.ones(layout.size)], [1], layout)


def test_a_client_of_another_model_is_refused_with_its_number(layout, clients):
    with pytest.raises(
        InputError, match=r"clients\[1\].shape: got \(5,\); expected \(\d+,\), as in the layout"
    ):
        aggregate([clients[0], clients[1][:5]], [0.5, 0.5], layout)
    with pytest.raises(InputError, match=r"clients\[0\].shape"):
        aggregate(clients[:, :5], [1 / 7] * 7, layout)


@pytest.mark.parametrize("kind", ["list", "tuple", "array", "float32", "int64", "iterator"])
def test_weights_of_any_kind_give_the_same_bits(layout, clients, generator, kind):
    counts = torch.randint(1, 10**6, (7,), generator=generator)
    whole = counts.tolist()
    given = {
        "list": whole,
        "tuple": tuple(map(float, whole)),
        "array": np.array(whole),
        "float32": counts.float(),
        "int64": counts,
        "iterator": iter(whole),
    }[kind]
    exact = counts.double() / counts.sum()
    expected = dispatch.aggregate(clients, exact, layout.offsets, backend="reference")[0]
    assert torch.equal(aggregate(clients, given, layout).change, expected)


@pytest.mark.parametrize(
    "weights", [["1"] * 7, [1j] * 7, [10**400] * 7, [[1.0]] * 7, np.array(3.0), "1234567"]
)
def test_weights_that_are_no_numbers_are_refused(layout, clients, weights):
    for normalize in (True, False):
        with pytest.raises(InputError, match=r"^weights"):
            aggregate(clients, weights, layout, normalize=normalize)


def test_tensors_without_a_flat_shape_are_refused_with_their_number(layout, clients):
    nested = torch.nested.nested_tensor([clients[0], clients[1]])
    for given in (nested, [clients[0], nested], [clients[0], clients[1].view(1, -1)]):
        with pytest.raises(InputError, match=r"^clients"):
            aggregate(given, [1, 1], layout)
    sparse = [clients[0], clients[1].to_sparse()]
    expected = aggregate(clients[:2], [1, 1], layout).change
    assert torch.equal(aggregate(sparse, [1, 1], layout).change, expected)


def test_norms_of_clients_are_exact_roots(layout, clients):
    found = aggregate(clients, [1] * 7, layout, client_stats="norms")
    squares = dispatch.aggregate(clients, [1 / 7] * 7, layout.offsets, client_stats="norms")[2]
    assert np.array_equal(found.client_norms.numpy(), np.sqrt(squares.numpy()))
