"""Compares the best sets within a budget with an enumeration of all sets."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast.selection.agreement.costs import Costs
from fedtlu_fast.selection.agreement.limits import Counts

VALUES = st.integers(-3, 9).map(float) | st.floats(-10, 10, allow_subnormal=False)


def every_set(layers):
    return [list(some) for size in range(layers + 1) for some in combinations(range(layers), size)]


def spent(some, costs, reach):
    return sum(costs[layer] for layer in some) + max((reach[layer] for layer in some), default=0.0)


def brute_force(values, budget, costs, reach):
    within = [some for some in every_set(len(values)) if spent(some, costs, reach) <= budget * (1 + 1e-12)]
    return max(sum(values[layer] for layer in some) for some in within)


@examples(100)
@given(st.data(), st.integers(1, 6), st.integers(1, 4), st.integers(1, 3))
def test_counts_take_the_largest_positive_values_the_earlier_of_equal_ones(data, layers, rows, starts):
    budgets = np.array(data.draw(st.lists(st.integers(0, layers), min_size=rows, max_size=rows)))
    shape = (starts, rows, layers)
    size = starts * rows * layers
    values = np.array(data.draw(st.lists(VALUES, min_size=size, max_size=size))).reshape(shape)
    limits = Counts(budgets)
    mask = limits.best_sets(values)
    assert limits.fits(mask).all()
    for start in range(starts):
        for row, budget in enumerate(budgets):
            ranked = sorted(range(layers), key=lambda layer: -values[start, row, layer])
            expected = {layer for layer in ranked[:budget] if values[start, row, layer] > 0}
            assert set(np.nonzero(mask[start, row])[0]) == expected
            assert set(np.nonzero(limits.best_set(row, values[start, row]))[0]) == expected
    found, worth = limits.relaxed(values[0])
    assert (found == mask[0]).all()
    assert worth == pytest.approx((values[0] * mask[0]).sum(1))


@examples(150)
@given(st.data(), st.integers(1, 7), st.integers(1, 3), st.booleans())
def test_costs_find_the_best_of_all_sets(data, layers, rows, whole):
    some_costs = st.integers(0, 6).map(float) if whole else st.just(0.0) | st.floats(0.01, 5)
    costs = np.array(data.draw(st.lists(some_costs, min_size=layers, max_size=layers)))
    reach = np.sort(data.draw(st.lists(some_costs, min_size=layers, max_size=layers)))[::-1]
    budgets = np.array(data.draw(st.lists(some_costs.map(lambda x: 3 * x), min_size=rows, max_size=rows)))
    values = np.array(data.draw(st.lists(VALUES, min_size=rows * layers, max_size=rows * layers)))
    values = values.reshape(rows, layers)
    limits = Costs(budgets, costs, reach)
    mask = limits.best_sets(values)
    assert limits.fits(mask).all()
    best = [
        brute_force(row, budget, costs, reach) for row, budget in zip(values.tolist(), budgets, strict=True)
    ]
    assert (values * mask).sum(1) == pytest.approx(best)
    assert limits.relaxed(values)[1] == pytest.approx(best)
    assert (values[mask] > 0).all()
    for row in range(rows):
        assert (limits.best_set(row, values[row]) == mask[row]).all()
    assert (limits.best_sets(np.stack([values, values])) == mask).all()


def test_the_way_down_is_paid_once_and_by_the_lowest_layer():
    costs, reach = np.ones(4), np.array([9.0, 4.0, 1.0, 0.0])
    values = np.array([[100.0, 10.0, 6.0, 5.0]])

    def chosen(budget):
        mask = Costs(np.array([budget]), costs, reach).best_sets(values)[0]
        return np.nonzero(mask)[0].tolist()

    assert [chosen(budget) for budget in (0.9, 1.0, 3.0, 5.0, 6.0, 7.0, 9.9, 10.0)] == [
        [],
        [3],
        [2, 3],
        [2, 3],
        [1, 2],
        [1, 2, 3],
        [1, 2, 3],
        [0],
    ]


def test_a_budget_is_kept_up_to_rounding():
    # 0.1 + 0.2 is 0.30000000000000004.
    costs, reach = np.array([0.1, 0.2, 5.0]), np.zeros(3)
    assert 0.1 + 0.2 > 0.3
    for budget, expected in [(0.3, [True, True, False]), (0.3 * (1 - 1e-9), [False, True, False])]:
        mask = Costs(np.array([budget]), costs, reach).best_sets(np.array([[1.0, 2.0, 0.5]]))
        assert mask[0].tolist() == expected


def test_costs_that_vanish_beside_others_are_counted_and_not_lost():
    costs, budgets = np.array([0.0, 1e-30, 1.0]), np.array([1e-31, 1e-30, 1.0, 2.0])
    mask = Costs(budgets, costs, np.zeros(3)).best_sets(np.tile([0.0, 1.0, 2.0], (4, 1)))
    assert mask[:, 2].tolist() == [False, False, True, True]
    assert mask[:, 1].tolist() == [False, True, True, True]


def test_the_margin_is_the_price_of_the_first_layer_that_does_not_fit():
    limits = Costs(np.array([3.0, 3.0, 9.0]), np.array([1.0, 2.0, 2.0]), np.array([1.0, 0.0, 0.0]))
    values = np.array([[5.0, 6.0, 1.0], [-1.0, 6.0, 1.0], [5.0, 6.0, 1.0]])
    mask = limits.best_sets(values)
    assert mask.tolist() == [[False, True, False], [False, True, False], [True, True, True]]
    assert limits.marginal(values, mask).tolist() == [0.5, 0.5, 0.0]
