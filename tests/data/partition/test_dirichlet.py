"""Dirichlet partition: all samples are dealt, by drawn proportions; alpha sets the distance from IID."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.partitions import SOURCES, assert_deals_everything_once, deal, heterogeneity, same
from support.sampling import examples

from fedtlu_fast import InputError
from fedtlu_fast.data.partition import Dirichlet, Iid

ALPHAS = st.sampled_from([1e-300, 1e-6, 0.01, 0.1, 1.0, 100.0, 1e38])


def dirichlet(sources, clients, alpha, least, seed=0, **more):
    return deal(Dirichlet(alpha, **more), sources, clients, seed, least)


@examples(200)
@given(SOURCES, st.integers(1, 20), ALPHAS, st.integers(0, 6), st.booleans(), st.integers(0, 99))
def test_dirichlet_deals_every_sample_once_and_keeps_the_minimum(
    sources, clients, alpha, least, balancing, seed
):
    if clients * least > len(sources):
        with pytest.raises(
            InputError, match=f"clients: got {clients}; expected at most {len(sources) // least}"
        ):
            dirichlet(sources, clients, alpha, least, seed, self_balancing=balancing)
        return
    parts = dirichlet(sources, clients, alpha, least, seed, self_balancing=balancing)
    assert_deals_everything_once(parts, sources, clients, least)


def test_small_alpha_is_far_from_iid_and_large_alpha_near():
    sources = np.repeat(np.arange(10), 200)
    distances = [
        np.mean([heterogeneity(dirichlet(sources, 10, alpha, 4, seed), sources) for seed in range(4)])
        for alpha in (0.01, 0.1, 1.0, 1000.0)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.7
    assert distances[-1] < 0.1
    iid = heterogeneity(deal(Iid(), sources, 10), sources)
    assert iid < 0.1


def test_dirichlet_gives_nothing_more_to_a_client_that_holds_its_equal_share():
    """With this alpha nearly every source goes to one client, and the others must still reach the minimum."""
    sources = np.repeat(np.arange(20), 20)
    for seed in range(10):
        sizes = [len(part) for part in dirichlet(sources, 10, 0.01, 1, seed)]
        assert max(sizes) <= 40 + 20


def test_without_balancing_the_proportions_are_those_of_the_distribution():
    """Shares of one source are Dirichlet(alpha): each has mean 1 / C and the variance of its formula."""
    clients, alpha, samples = 5, 0.5, 1000
    sources = np.zeros(samples, dtype=np.int64)
    partitioner = Dirichlet(alpha, self_balancing=False)
    dealt = [deal(partitioner, sources, clients, seed, least=0) for seed in range(600)]
    shares = np.array([[len(part) / samples for part in parts] for parts in dealt])
    variance = (clients - 1) / (clients**2 * (clients * alpha + 1))
    # 600 draws: the standard error of a mean is 0.0087, of a variance about 6%; five of them, seeds fixed.
    assert np.abs(shares.mean(axis=0) - 1 / clients).max() < 0.044
    assert np.abs(shares.var(axis=0) / variance - 1).max() < 0.3


def test_samples_are_handed_over_by_the_clients_that_hold_most():
    """With this alpha every source goes to one client; the others have only samples that are handed over."""
    sources = np.zeros(100, dtype=np.int64)
    sizes = sorted(len(part) for part in dirichlet(sources, 5, 1e-6, 10, self_balancing=False))
    assert sizes == [10, 10, 10, 10, 60]


def test_ten_thousand_clients_are_dealt_in_seconds():
    sources = np.repeat(np.arange(10), 8000)
    start = time.monotonic()
    parts = dirichlet(sources, 10_000, 0.01, 8)
    assert time.monotonic() - start < 20
    assert_deals_everything_once(parts, sources, 10_000, 8)


def test_the_same_seed_deals_the_same():
    sources = np.repeat(np.arange(8), 10)
    first, again, other = (dirichlet(sources, 5, 0.1, 4, seed) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_samples_for_the_clients_are_refused_immediately(count):
    with pytest.raises(InputError, match="clients"):
        dirichlet(np.zeros(count, dtype=np.int64), 4, 0.1, 2)
