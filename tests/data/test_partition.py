"""Samples dealt to clients: every one to exactly one, and how far from IID."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtlu_fast import InputError
from fedtlu_fast.config import PartitionConfig
from fedtlu_fast.data.partition import (
    DirichletPartitioner,
    IidPartitioner,
    NaturalIdPartitioner,
    make_partitioner,
)
from fedtlu_fast.randomness import generator

SOURCES = st.lists(st.integers(0, 8), min_size=1, max_size=120).map(np.array)
ALPHAS = st.sampled_from([1e-300, 1e-6, 0.01, 0.1, 1.0, 100.0, 1e300])


def deal(partitioner, sources, seed=0):
    return partitioner.partition(sources, generator(seed, "partition"))


def assert_deals_everything_once(parts, sources, clients, least):
    assert len(parts) == clients
    assert all(part.dtype == np.int64 for part in parts)
    assert min(map(len, parts)) >= least
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(sources)))


def heterogeneity(parts, sources):
    """Mean total variation distance between a client's sources and those of all."""
    kinds = int(sources.max()) + 1
    overall = np.bincount(sources, minlength=kinds) / len(sources)
    shares = [np.bincount(sources[part], minlength=kinds) / len(part) for part in parts]
    return float(np.mean([np.abs(share - overall).sum() / 2 for share in shares]))


@settings(max_examples=150, deadline=None)
@given(SOURCES, st.integers(1, 30), st.integers(0, 99))
def test_iid_deals_every_sample_once_in_equal_shares(sources, clients, seed):
    partitioner = IidPartitioner(clients)
    if clients > len(sources):
        with pytest.raises(InputError, match="clients"):
            deal(partitioner, sources)
        return
    parts = deal(partitioner, sources, seed)
    assert_deals_everything_once(parts, sources, clients, len(sources) // clients)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@settings(max_examples=200, deadline=None)
@given(SOURCES, st.integers(1, 20), ALPHAS, st.integers(0, 6), st.integers(0, 99))
def test_dirichlet_deals_every_sample_once_and_keeps_the_minimum(sources, clients, alpha, least, seed):
    partitioner = DirichletPartitioner(clients, alpha, least)
    if clients * least > len(sources):
        with pytest.raises(
            InputError, match=f"clients: got {clients}; expected at most {len(sources) // least}"
        ):
            deal(partitioner, sources, seed)
        return
    assert_deals_everything_once(deal(partitioner, sources, seed), sources, clients, least)


@settings(max_examples=150, deadline=None)
@given(SOURCES, st.integers(1, 10), st.integers(1, 12))
def test_natural_deals_whole_sources(sources, clients, least):
    partitioner = NaturalIdPartitioner(clients, least)
    try:
        parts = deal(partitioner, sources)
    except InputError as error:
        assert error.field == "clients"  # noqa: PT017 (either outcome is right, by the data)
        assert clients > 1 or len(sources) < least
        return
    assert_deals_everything_once(parts, sources, clients, least)
    for source in np.unique(sources):
        holders = [index for index, part in enumerate(parts) if (sources[part] == source).any()]
        assert len(holders) == 1


def test_natural_is_one_topic_per_client():
    sources = np.repeat([0, 1, 2, 3], [5, 9, 6, 7])
    parts = deal(NaturalIdPartitioner(4, 4), sources)
    assert [np.unique(sources[part]).tolist() for part in parts] == [[0], [1], [2], [3]]


def test_natural_joins_sources_that_are_too_small():
    sources = np.repeat([0, 1, 2, 3, 4], [5, 1, 1, 6, 2])
    parts = deal(NaturalIdPartitioner(2, 4), sources)
    assert [np.unique(sources[part]).tolist() for part in parts] == [[0], [1, 2, 3, 4]]


def test_natural_with_fewer_clients_gives_the_next_source_to_the_poorest():
    sources = np.repeat([0, 1, 2, 3], [9, 4, 6, 4])
    parts = deal(NaturalIdPartitioner(2, 2), sources)
    assert [np.unique(sources[part]).tolist() for part in parts] == [[0, 3], [1, 2]]


def test_too_many_clients_for_the_sources_is_refused_with_how_many_there_can_be():
    sources = np.repeat([0, 1, 2], [5, 5, 1])
    with pytest.raises(InputError, match=r"clients: got 3; expected at most 2, .*Use clients=2"):
        deal(NaturalIdPartitioner(3, 4), sources)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_samples_for_the_clients_is_refused_at_once(count):
    sources = np.zeros(count, dtype=np.int64)
    for partitioner in (DirichletPartitioner(4, 0.1, 2), IidPartitioner(8), NaturalIdPartitioner(8, 1)):
        with pytest.raises(InputError, match="clients"):
            deal(partitioner, sources)


def test_small_alpha_is_far_from_iid_and_large_alpha_near():
    sources = np.repeat(np.arange(10), 200)
    distances = [
        np.mean(
            [
                heterogeneity(deal(DirichletPartitioner(10, alpha, 4), sources, seed), sources)
                for seed in range(4)
            ]
        )
        for alpha in (0.01, 0.1, 1.0, 1000.0)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.7
    assert distances[-1] < 0.1
    iid = heterogeneity(deal(IidPartitioner(10), sources), sources)
    assert iid < 0.1


def test_dirichlet_gives_nothing_more_to_a_client_that_holds_its_equal_share():
    """With such an alpha nearly every source goes to one client: the poor ones must get theirs."""
    sources = np.repeat(np.arange(20), 20)
    for seed in range(10):
        sizes = [len(part) for part in deal(DirichletPartitioner(10, 0.01, 1), sources, seed)]
        assert max(sizes) <= 40 + 20


@pytest.mark.parametrize("name", ["iid", "dirichlet", "natural"])
def test_the_same_seed_deals_the_same(name):
    sources = np.repeat(np.arange(8), 10)
    partitioner = make_partitioner(PartitionConfig(name=name), 5)
    assert partitioner.num_partitions == 5
    first, again, other = (deal(partitioner, sources, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    differs = any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert differs == (name != "natural")


def test_settings_name_the_partitioner():
    assert make_partitioner(PartitionConfig(name="iid"), 3) == IidPartitioner(3)
    chosen = PartitionConfig(name="dirichlet", alpha=0.7, min_samples=5)
    assert make_partitioner(chosen, 3) == DirichletPartitioner(3, 0.7, 5)
    assert make_partitioner(PartitionConfig(name="natural"), 3) == NaturalIdPartitioner(3, 4)
