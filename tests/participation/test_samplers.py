"""Samplers: frequencies of the draws, no repetitions, and the same draw for the same seed and round."""

import time
from collections import Counter
from itertools import permutations
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast.participation import ByLoss, BySize, Fixed, Pool, Uniform
from fedtlu_fast.participation.cohort import sample_cohort

SIZES = np.array([1, 2, 3, 4, 0, 10])


def pool(index=1, clients=20, available=None, losses=None, sizes=None, seed=0):
    return Pool(seed, index, clients, available, losses or {}, sizes)


@examples(100)
@given(st.data(), st.integers(1, 30), st.integers(1, 50))
def test_draws_are_of_different_clients_that_can_take_part_and_are_repeatable(data, clients, index):
    sizes = np.array(data.draw(st.lists(st.integers(0, 9), min_size=clients, max_size=clients)))
    count = data.draw(st.integers(1, clients))
    chosen = data.draw(st.none() | st.sets(st.integers(0, clients - 1)))
    available = None if chosen is None else np.array(sorted(chosen), dtype=np.int64)
    losses = data.draw(st.dictionaries(st.integers(0, clients - 1), st.floats(-inf, 9.0)))
    can = set(range(clients)) if chosen is None else chosen
    holding = {client for client in can if sizes[client]}
    given = pool(index, clients, available, losses, sizes, seed=3)
    for sampler in (Uniform(), BySize(), ByLoss(), Fixed()):
        drawn = sampler.draw(given, count)
        assert len(set(drawn)) == len(drawn) <= count
        assert all(type(client) is int for client in drawn)
        assert set(drawn) <= can
        if isinstance(sampler, Uniform):
            assert len(drawn) == min(count, len(can))
        elif not isinstance(sampler, Fixed):
            assert len(drawn) == min(count, len(holding))
            assert set(drawn) <= holding
        assert sampler.draw(given, count) == drawn


def test_uniform_with_all_clients_available_draws_the_usual_cohort():
    assert Uniform().draw(pool(7, 100, seed=3), 10) == sample_cohort(3, 7, 100, 10)


def test_rounds_and_seeds_differ():
    def drawn(index, seed):
        return BySize().draw(pool(index, 100, sizes=np.arange(1, 101), seed=seed), 10)

    assert drawn(7, 3) not in (drawn(8, 3), drawn(7, 4))


def test_uniform_draws_available_clients_uniformly():
    available = np.array([2, 3, 5, 7, 11])
    pools = [pool(index, 20, available) for index in range(2000)]
    drawn = Counter(client for own in pools for client in Uniform().draw(own, 2))
    # Binomial: 800 +- 22; five standard deviations, and the seed is fixed.
    assert set(drawn) == set(available.tolist())
    assert all(abs(count - 800) < 110 for count in drawn.values())


@pytest.mark.parametrize("available", [None, np.array([0, 2, 3, 4])])
def test_by_size_each_next_client_has_chances_in_proportion_to_its_size(available):
    """Compares with the probability of every ordered pair: w_a / sum * w_b / (sum - w_a)."""
    can = [client for client in range(6) if available is None or client in available]
    total = SIZES[can].sum()
    expected = {
        (a, b): SIZES[a] / total * SIZES[b] / (total - SIZES[a])
        for a, b in permutations(can, 2)
        if SIZES[a] and SIZES[b]
    }
    assert sum(expected.values()) == pytest.approx(1)
    draws = 6000
    pools = [pool(index, 6, available, sizes=SIZES) for index in range(draws)]
    found = Counter(tuple(BySize().draw(own, 2)) for own in pools)
    assert set(found) <= set(expected)
    for pair, chance in expected.items():
        # As a set, because the order of NumPy's draw is not specified.
        both = chance + expected[pair[::-1]]
        count = found[pair] + found[pair[::-1]]
        assert abs(count - draws * both) < 5 * (draws * both * (1 - both)) ** 0.5


def test_power_of_choice_takes_the_candidates_with_the_largest_last_loss():
    losses = {client: float(client) for client in range(20)}
    for index in range(50):
        given = pool(index, 20, losses=losses, sizes=np.ones(20, np.int64))
        candidates = BySize().draw(given, 6)
        drawn = ByLoss(6).draw(given, 3)
        assert drawn == ByLoss().draw(given, 3), "twice the cohort is the default"
        assert drawn == sorted(candidates, reverse=True)[:3]


def test_there_are_no_more_candidates_than_clients():
    given = pool(1, 5, sizes=np.ones(5, np.int64))
    assert ByLoss().draw(given, 3) == ByLoss(5).draw(given, 3)


def test_power_of_choice_takes_unknown_clients_first_and_refused_ones_last():
    given = pool(1, 4, losses={0: 0.1, 1: -inf, 2: 7.0}, sizes=np.ones(4, np.int64))
    assert ByLoss(4).draw(given, 4) == [3, 2, 0, 1]


def test_the_number_of_candidates_goes_from_by_size_to_the_largest_of_all():
    losses = {client: (client * 7) % 30 / 10 for client in range(30)}
    given = pool(4, 30, losses=losses, sizes=np.arange(1, 31), seed=2)
    largest = sorted(range(30), key=lambda client: -losses[client])[:5]
    assert ByLoss(30).draw(given, 5) == largest
    assert sorted(ByLoss(5).draw(given, 5)) == sorted(BySize().draw(given, 5))


def test_fixed_takes_the_same_clients_without_unavailable_ones():
    first = Fixed().draw(pool(1, 50), 5)
    assert len(set(first)) == 5
    assert all(Fixed().draw(pool(index, 50), 5) == first for index in range(2, 20))
    assert Fixed().draw(pool(1, 50, seed=1), 5) != first
    named = Fixed((9, 4, 7))
    assert named.draw(pool(1, 50), 3) == [9, 4, 7]
    assert named.draw(pool(2, 50, np.array([4, 8, 9])), 3) == [9, 4]
    assert named.draw(pool(2, 50, np.array([8])), 3) == []


def test_uniform_draws_from_millions_without_listing_them():
    clients = 1_000_000_000
    start = time.monotonic()
    for sampler in (Uniform(), Fixed()):
        assert len(set(sampler.draw(pool(1, clients), 100))) == 100
    assert time.monotonic() - start < 5
