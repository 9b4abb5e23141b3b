"""Tests `most_agreement`: it keeps its share, by the largest lambda that does, in any order and units."""

from fractions import Fraction
from itertools import pairwise, product
from math import fsum, inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast import InputError
from fedtlu_fast.selection import choose_layers, most_agreement

SHARES = [0.0, 0.3, 0.5, 0.75, 0.9, 1.0]
GAINS = st.integers(0, 4).map(float) | st.floats(0, 5, allow_subnormal=False)


@st.composite
def small(draw, clients, layers, gains=GAINS):
    """Draws gains and budgets of a small problem."""
    shape = draw(st.integers(1, clients)), draw(st.integers(1, layers))
    size = shape[0] * shape[1]
    table = np.array(draw(st.lists(gains, min_size=size, max_size=size))).reshape(shape)
    budgets = draw(st.lists(st.integers(1, shape[1]), min_size=shape[0], max_size=shape[0]))
    return table, np.array(budgets)


def gain(mask, gains):
    return fsum(gains[mask])


def disagreements(mask):
    counts = mask.sum(axis=0)
    return int((counts * (len(mask) - counts)).sum())


def drawn(seed, clients=6, layers=5):
    generator = np.random.default_rng(seed)
    own = generator.choice([0.2, 0.5, 1.0])
    gains = (1 - own) * generator.gamma(2, 1, layers) + own * generator.gamma(2, 1, (clients, layers))
    return gains, generator.integers(1, layers, clients)


def every_choice(gains, budgets):
    """The gains and disagreements of all choices within the budgets, exactly."""
    clients, layers = gains.shape
    exact = [[Fraction(value) for value in row] for row in gains.tolist()]
    sets = [
        [own for own in product([False, True], repeat=layers) if sum(own) <= budget] for budget in budgets
    ]
    return {
        (
            sum(exact[i][layer] for i in range(clients) for layer in range(layers) if choice[i][layer]),
            disagreements(np.array(choice)),
        )
        for choice in product(*sets)
    }


def chance_of(gains, budgets):
    """What as many layers as each client takes by itself gain by chance, exactly."""
    total = Fraction(0)
    for row, budget in zip(gains.tolist(), budgets, strict=True):
        own = sorted((Fraction(value) for value in row if value > 0), reverse=True)[:budget]
        total += min(sum(own), len(own) * sum(map(Fraction, row)) / len(row))
    return total


def largest_lambda(choices, enough):
    """The largest lambda at which a choice that gains enough solves P1, by trying all that could be."""
    keeping = [point for point in choices if point[0] >= enough]
    others = [point for point in choices if point[0] < enough]

    def worth(points, lam):
        return max(gained - lam * pairs for gained, pairs in points)

    agreed = max(gained for gained, pairs in choices if pairs == 0)
    if agreed >= enough:
        return inf
    crossings = {
        (one[0] - other[0]) / (one[1] - other[1]) for one in keeping for other in others if one[1] > other[1]
    }
    return max(lam for lam in crossings if worth(keeping, lam) >= worth(others, lam))


@examples(60)
@given(
    small(3, 3, st.integers(0, 6).map(float)), st.sampled_from([0, *map(Fraction, ("1/2", "3/4", "7/8")), 1])
)
def test_lambda_is_the_largest_that_keeps_the_share_among_all_choices(problem, kept):
    gains, budgets = problem
    choices, chance = every_choice(gains, budgets), chance_of(gains, budgets)
    worth = max(gained for gained, _ in choices) - chance
    found = most_agreement(gains, budgets, float(kept), exact=True)
    expected = largest_lambda(choices, chance + kept * worth)
    assert found.lam == pytest.approx(float(expected), rel=1e-9)
    gained, pairs = gain(found.mask, gains), disagreements(found.mask)
    share = (gained - float(chance)) / float(worth) if worth else 1.0
    assert found.kept == pytest.approx(share, abs=1e-9)
    assert share >= kept - 1e-9
    if expected == inf:
        assert pairs == 0
    else:  # it solves P1 at this lambda
        solved = max(value - expected * count for value, count in choices)
        assert gained - float(expected) * pairs == pytest.approx(float(solved), rel=1e-9, abs=1e-9)


@examples(100)
@given(small(6, 5), st.sampled_from(SHARES), st.booleans())
def test_the_share_is_kept_and_no_budget_exceeded(problem, kept, costly):
    gains, budgets = problem
    layers = gains.shape[1]
    costs = np.linspace(0.5, 1.0, layers) if costly else None
    alone = choose_layers(gains, budgets, 0.0, costs=costs)
    found = most_agreement(gains, budgets, kept, costs=costs)
    own = (gains * alone.mask).sum(1)
    chance = np.minimum(own, gains.mean(1) * alone.mask.sum(1)).sum()
    gained, worth = gain(found.mask, gains), own.sum() - chance
    assert gained >= chance + kept * worth - 1e-9 * own.sum()
    if worth > 1e-6 * own.sum():
        assert found.kept == pytest.approx((gained - chance) / worth, abs=1e-6)
    assert (found.mask @ (np.ones(layers) if costs is None else costs) <= budgets + 1e-9).all()
    assert disagreements(found.mask) <= disagreements(alone.mask)


@examples(60)
@given(small(6, 5), st.sampled_from(SHARES), st.randoms(use_true_random=False))
def test_the_order_of_clients_only_permutes_the_rows(problem, kept, random):
    gains, budgets = problem
    order = random.sample(range(len(gains)), len(gains))
    found, moved = most_agreement(gains, budgets, kept), most_agreement(gains[order], budgets[order], kept)
    np.testing.assert_array_equal(moved.mask, found.mask[order])
    assert (moved.lam, moved.kept) == (found.lam, found.kept)


@examples(40)
@given(small(5, 4), st.sampled_from(SHARES), st.integers(-60, 60))
def test_lambda_is_in_the_units_of_the_gains(problem, kept, exponent):
    gains, budgets = problem
    found = most_agreement(gains, budgets, kept)
    scaled = most_agreement(gains * 2.0**exponent, budgets, kept)
    np.testing.assert_array_equal(scaled.mask, found.mask)
    assert (scaled.lam, scaled.kept) == (found.lam * 2.0**exponent, found.kept)


def test_gains_whose_sum_is_beyond_float64_are_like_any():
    gains, budgets = drawn(1)
    found = most_agreement(gains, budgets, 0.9)
    huge = most_agreement(gains * 2.0**1020, budgets, 0.9)
    np.testing.assert_array_equal(huge.mask, found.mask)
    assert huge.kept == found.kept


@pytest.mark.parametrize("seed", range(12))
def test_a_smaller_share_never_has_a_smaller_lambda_nor_more_disagreements(seed):
    gains, budgets = drawn(seed, clients=5, layers=4)
    found = [most_agreement(gains, budgets, kept, exact=True) for kept in np.linspace(0, 1, 9)]
    for less, more in pairwise(found):
        assert less.lam >= more.lam
        assert disagreements(less.mask) <= disagreements(more.mask)
        assert less.kept <= more.kept


@pytest.mark.parametrize("seed", range(12))
def test_if_nothing_may_be_lost_each_client_takes_its_own_best(seed):
    gains, budgets = drawn(seed)
    found = most_agreement(gains, budgets, 1.0)
    np.testing.assert_array_equal(found.mask, choose_layers(gains, budgets, 0.0).mask)
    assert found.kept == 1.0


def test_where_layers_are_alike_the_little_that_choosing_is_worth_counts():
    # The third client gives up 1% of its gains, but all that its choice is worth.
    gains = np.array([[101.0, 100.0], [101.0, 100.0], [100.0, 101.0]])
    assert most_agreement(gains, [1, 1, 1], 0.9).mask.tolist() == [
        [True, False],
        [True, False],
        [False, True],
    ]
    agreed = most_agreement(gains, [1, 1, 1], 0.3)
    assert agreed.mask.tolist() == [[True, False]] * 3
    assert (agreed.lam, agreed.kept) == (inf, pytest.approx(1 / 3))


def test_what_costs_nothing_is_agreed_on_even_if_all_gains_are_kept():
    # By itself each client takes the earlier of two layers of equal gain.
    gains = np.array([[2.0, 2.0, 0.0], [0.0, 2.0, 2.0]])
    assert disagreements(choose_layers(gains, [1, 1], 0.0).mask) == 2
    found = most_agreement(gains, [1, 1], 1.0)
    assert found.mask.tolist() == [[False, True, False]] * 2
    assert (found.lam, found.kept) == (inf, 1.0)


def test_an_example_by_hand():
    # Alone: layers 0, 0, 1 with gains 4, 4, 3, and two disagreements about each of two layers. The third
    # client gives way at 4 lambda = 3 - 1, which leaves 9 of 11; chance is 2.5 + 2.5 + 2 = 7.
    gains, budgets = [[4.0, 1.0], [4.0, 1.0], [1.0, 3.0]], [1, 1, 1]
    found = most_agreement(gains, budgets, 0.6)
    assert found.mask.tolist() == [[True, False], [True, False], [False, True]]
    assert (found.lam, found.kept) == (0.5, 1.0)
    found = most_agreement(gains, budgets, 0.5)
    assert found.mask.tolist() == [[True, False]] * 3
    assert (found.lam, found.kept) == (inf, 0.5)


def test_without_gains_everything_is_kept():
    found = most_agreement(np.zeros((3, 2)), [1, 2, 0], 0.9)
    assert not found.mask.any()
    assert (found.lam, found.kept) == (inf, 1.0)


@pytest.mark.parametrize("kept", [-0.1, 1.1, nan, "most"])
def test_a_share_is_between_0_and_1(kept):
    with pytest.raises(InputError, match=r"kept: .*a share from 0 to 1"):
        most_agreement([[1.0]], [1], kept)


def test_other_arguments_are_refused_as_by_choose_layers():
    with pytest.raises(InputError, match=r"gains\[0, 0\]"):
        most_agreement([[nan]], [1], 0.9)
    with pytest.raises(InputError, match=r"budgets\[0\]"):
        most_agreement([[1.0]], [-1], 0.9)
