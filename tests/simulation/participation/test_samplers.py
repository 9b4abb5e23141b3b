"""Who is drawn: how often, never twice, the same for the same seed and round."""

import time
from collections import Counter
from itertools import permutations
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast.simulation.cohort import sample_cohort
from fedtlu_fast.simulation.participation.samplers import (
    FixedSampler,
    LossSampler,
    SizeSampler,
    UniformSampler,
)

SIZES = np.array([1, 2, 3, 4, 0, 10])


def samplers(clients, sizes, candidates):
    by_size = SizeSampler(3, sizes)
    return [
        UniformSampler(3, clients),
        by_size,
        LossSampler(by_size, candidates),
        FixedSampler(3, clients, None),
    ]


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
    for sampler in samplers(clients, sizes, min(2 * count, clients)):
        drawn = sampler.draw(index, count, available, losses)
        assert len(set(drawn)) == len(drawn) <= count
        assert all(type(client) is int for client in drawn)
        assert set(drawn) <= can
        if isinstance(sampler, UniformSampler):
            assert len(drawn) == min(count, len(can))
        elif not isinstance(sampler, FixedSampler):
            assert len(drawn) == min(count, len(holding))
            assert set(drawn) <= holding
        assert sampler.draw(index, count, available, losses) == drawn


def test_uniform_with_everyone_there_draws_as_ever():
    assert UniformSampler(3, 100).draw(7, 10, None, {}) == sample_cohort(3, 7, 100, 10)


def test_rounds_and_seeds_differ():
    by_size = SizeSampler(3, np.arange(1, 101))
    others = (by_size.draw(8, 10, None, {}), SizeSampler(4, np.arange(1, 101)).draw(7, 10, None, {}))
    assert by_size.draw(7, 10, None, {}) not in others


def test_uniform_among_those_that_can_take_part_is_uniform():
    available = np.array([2, 3, 5, 7, 11])
    sampler = UniformSampler(0, 20)
    drawn = Counter(client for index in range(2000) for client in sampler.draw(index, 2, available, {}))
    # Binomial: 800 +- 22; five standard deviations, and the seed is fixed.
    assert set(drawn) == set(available.tolist())
    assert all(abs(count - 800) < 110 for count in drawn.values())


@pytest.mark.parametrize("available", [None, np.array([0, 2, 3, 4])])
def test_by_size_each_next_client_has_chances_in_proportion_to_its_size(available):
    """Every ordered pair's probability, worked out: w_a / sum * w_b / (sum - w_a)."""
    can = [client for client in range(6) if available is None or client in available]
    total = SIZES[can].sum()
    expected = {
        (a, b): SIZES[a] / total * SIZES[b] / (total - SIZES[a])
        for a, b in permutations(can, 2)
        if SIZES[a] and SIZES[b]
    }
    assert sum(expected.values()) == pytest.approx(1)
    draws = 6000
    sampler = SizeSampler(0, SIZES)
    found = Counter(tuple(sampler.draw(index, 2, available, {})) for index in range(draws))
    assert set(found) <= set(expected)
    for pair, chance in expected.items():
        # As a set: in which order numpy gives what it drew is its own affair.
        both = chance + expected[pair[::-1]]
        count = found[pair] + found[pair[::-1]]
        assert abs(count - draws * both) < 5 * (draws * both * (1 - both)) ** 0.5


def test_power_of_choice_takes_the_candidates_with_the_largest_last_loss():
    by_size = SizeSampler(0, np.ones(20, np.int64))
    losses = {client: float(client) for client in range(20)}
    for index in range(50):
        candidates = by_size.draw(index, 6, None, {})
        drawn = LossSampler(by_size, 6).draw(index, 3, None, losses)
        assert drawn == sorted(candidates, reverse=True)[:3]


def test_power_of_choice_begins_with_those_it_knows_nothing_of_and_ends_with_broken_ones():
    sampler = LossSampler(SizeSampler(0, np.ones(4, np.int64)), 4)
    losses = {0: 0.1, 1: -inf, 2: 7.0}
    assert sampler.draw(1, 4, None, losses) == [3, 2, 0, 1]


def test_as_many_candidates_as_clients_makes_it_the_largest_of_all_and_as_many_as_drawn_by_size():
    sizes = np.arange(1, 31)
    by_size, losses = SizeSampler(2, sizes), {client: (client * 7) % 30 / 10 for client in range(30)}
    largest = sorted(range(30), key=lambda client: -losses[client])[:5]
    assert LossSampler(by_size, 30).draw(4, 5, None, losses) == largest
    assert sorted(LossSampler(by_size, 5).draw(4, 5, None, losses)) == sorted(by_size.draw(4, 5, None, {}))


def test_fixed_is_the_same_in_every_round_and_misses_who_cannot():
    drawn = FixedSampler(0, 50, None)
    first = drawn.draw(1, 5, None, {})
    assert len(set(first)) == 5
    assert all(drawn.draw(index, 5, None, {}) == first for index in range(2, 20))
    assert FixedSampler(1, 50, None).draw(1, 5, None, {}) != first
    named = FixedSampler(0, 50, (9, 4, 7))
    assert named.draw(1, 3, None, {}) == [9, 4, 7]
    assert named.draw(2, 3, np.array([4, 8, 9]), {}) == [9, 4]
    assert named.draw(2, 3, np.array([8]), {}) == []


def test_millions_of_clients_cost_nothing_where_none_is_listed():
    clients = 1_000_000_000
    start = time.monotonic()
    for sampler in (UniformSampler(0, clients), FixedSampler(0, clients, None)):
        assert len(set(sampler.draw(1, 100, None, {}))) == 100
    assert time.monotonic() - start < 5
