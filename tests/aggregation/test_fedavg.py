"""The weighted mean of client changes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast.aggregation import WeightedMean
from fedtlu_fast.errors import BackendUnavailableError, InputError


def mean_of(base, clients, samples, backend="auto"):
    mean = WeightedMean(base, backend)
    for client, count in zip(clients, samples, strict=True):
        mean.add_(client, count)
    assert mean.total == sum(samples)
    return mean.change()


def test_mean_by_hand(backend, backend_device):
    base = torch.tensor([1.0, 0.0, -2.0], device=backend_device)
    clients = torch.tensor([[2.0, 0.0, -2.0], [5.0, 4.0, 2.0]], device=backend_device)
    got = mean_of(base, clients, (3, 1), backend)
    assert got.tolist() == [(3 * 1 + 4) / 4, 1.0, 1.0]
    assert base.tolist() == [1.0, 0.0, -2.0], "the base is not changed"


def test_pieces_of_a_client_give_the_bits_of_the_whole(backend, backend_device):
    base, client = (torch.randn(20_001, device=backend_device) for _ in range(2))
    partial = torch.cat([client[:5000], base[5000:7000], client[7000:]])
    whole, pieces = WeightedMean(base, backend), WeightedMean(base, backend)
    whole.add_(client, 7)
    whole.add_(partial, 3)
    for place in (slice(0, 5000), slice(5000, 7000), slice(7000, 20_001)):
        pieces.add_piece_(place, client[place], 7)
        if place.start != 5000:  # where a client adds nothing, it counts as unchanged
            pieces.add_piece_(place, client[place], 3)
    pieces.total += 7 + 3
    assert torch.equal(pieces.change(), whole.change())


def test_the_mean_of_one_client_is_its_change():
    base, client = torch.tensor([1.0, 2.0]), torch.tensor([1.5, 4.0])
    assert mean_of(base, [client], (17,)).tolist() == [0.5, 2.0]


def test_the_mean_of_equal_changes_is_that_change():
    base = torch.tensor([0.25, 8.0])
    assert mean_of(base, [base + 0.5] * 4, (1, 2, 3, 2)).tolist() == [0.5, 0.5]


def test_a_client_without_samples_counts_for_nothing():
    base = torch.zeros(2)
    assert mean_of(base, [torch.ones(2), torch.full((2,), 9.0)], (4, 0)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("size", [0, 3])
def test_no_client_gives_no_change(size):
    mean = WeightedMean(torch.randn(size))
    assert torch.equal(mean.change(), torch.zeros(size))
    assert mean.total == 0


def test_a_vector_may_be_reused_after_it_was_added():
    base, working = torch.zeros(3), torch.ones(3)
    mean = WeightedMean(base)
    mean.add_(working, 1)
    working.fill_(99)
    assert mean.change().tolist() == [1.0] * 3
    assert mean.change().tolist() == [1.0] * 3, "asking does not change the answer"


COUNTS = st.lists(st.integers(1, 5000), min_size=1, max_size=20)


@examples(60)
@given(COUNTS, st.integers(0, 2**32 - 1))
def test_mean_is_within_a_few_ulps_a_client_of_the_exact_mean(samples, seed):
    draws = np.random.default_rng(seed)
    base = torch.from_numpy(draws.standard_normal(50)).float()
    clients = base + torch.from_numpy(draws.standard_normal((len(samples), 50))).float() * 1e-2
    got = mean_of(base, clients, samples)
    changes = (clients.double() - base.double()).numpy()
    weights = np.array(samples, dtype=np.float64) / sum(samples)
    exact = weights @ changes
    # Every addition rounds a partial sum once, to half an ulp of float32.
    bound = (len(samples) + 2) * 2.0**-24 * (weights @ np.abs(changes)).max()
    assert np.abs(got.double().numpy() - exact).max() <= bound


@examples(40)
@given(COUNTS, st.integers(2, 50))
def test_only_the_proportions_of_the_samples_count(samples, factor):
    base = torch.zeros(8)
    clients = torch.randn(len(samples), 8, generator=torch.Generator().manual_seed(1))
    plain = mean_of(base, clients, samples)
    scaled = mean_of(base, clients, [factor * count for count in samples])
    torch.testing.assert_close(scaled, plain, rtol=1e-5, atol=1e-6)


@examples(40)
@given(COUNTS)
def test_mean_lies_between_its_clients(samples):
    clients = torch.randn(len(samples), 8, generator=torch.Generator().manual_seed(2))
    got = mean_of(torch.zeros(8), clients, samples)
    room = 1e-5
    assert (got >= clients.amin(0) - room).all()
    assert (got <= clients.amax(0) + room).all()


def test_changes_far_smaller_than_the_parameters_keep_their_digits():
    """float32 parameters near 100 move by one ulp: client minus base is exact, and so is the mean."""
    base = torch.full((4,), 100.0)
    client = torch.nextafter(base, torch.full((4,), math.inf))
    got = mean_of(base, [client, base], (1, 3))
    assert torch.equal(got, (client - base) / 4)


def test_same_bits_on_every_backend(backend, backend_device, generator):
    base = torch.randn(300, generator=generator)
    clients = [base + torch.randn(300, generator=generator) for _ in range(3)]
    expected = mean_of(base, clients, (7, 1, 12), "reference")
    moved = [client.to(backend_device) for client in clients]
    got = mean_of(base.to(backend_device), moved, (7, 1, 12), backend)
    assert torch.equal(got.cpu(), expected)


def test_a_vector_of_another_model_is_refused():
    with pytest.raises(InputError, match="client"):
        WeightedMean(torch.zeros(3)).add_(torch.zeros(4), 1)
    with pytest.raises(BackendUnavailableError, match="native"):
        WeightedMean(torch.zeros(3, device="meta"), "native").add_(torch.zeros(3, device="meta"), 1)
