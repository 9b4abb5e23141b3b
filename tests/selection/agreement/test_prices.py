"""Tests the prices that the bound begins with, and how near to the optimum it comes from there."""

import numpy as np
import pytest
from scipy.optimize import isotonic_regression

from fedtlu_fast.selection import choose_layers
from fedtlu_fast.selection.agreement.prices import falling


@pytest.mark.parametrize("seed", range(10))
def test_falling_values_are_the_isotonic_regression_of_each_group(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 40, 6)
    values = np.round(rng.normal(size=sizes.sum()), 1 if seed % 2 else 9)
    weights = rng.integers(1, 4, sizes.sum()).astype(float)
    starts = np.cumsum(sizes) - sizes
    first = np.zeros(len(values), dtype=np.bool_)
    first[starts] = True
    found = falling(values, weights, first)
    for start, size in zip(starts, sizes, strict=True):
        group = slice(start, start + size)
        expected = isotonic_regression(values[group], weights=weights[group], increasing=False).x
        assert found[group] == pytest.approx(expected)


@pytest.mark.parametrize("reached", [False, True])
def test_with_costs_that_all_differ_choices_are_proven_to_be_near_the_optimum(reached):
    gaps = []
    for seed in range(3):
        rng = np.random.default_rng([7, seed])
        gains, costs = rng.gamma(2, 1, (100, 24)), rng.gamma(2, 1, 24) + 0.1
        reach = np.arange(24, 0, -1) / 8 * reached
        budgets = rng.uniform(0.2, 0.6, 100) * costs.sum()
        choice = choose_layers(gains, budgets, 0.3 * gains.mean() / 100, costs=costs, reach=reach)
        assert ((choice.mask * costs).sum(1) + (choice.mask * reach).max(1) <= budgets * (1 + 1e-12)).all()
        gaps.append(choice.gap)
    assert np.median(gaps) <= 0.001
