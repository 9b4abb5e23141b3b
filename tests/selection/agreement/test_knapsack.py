"""Tests the knapsacks: both programmes give the same bits, and bounds hold if a search ends early."""

from itertools import combinations

import numpy as np
import pytest

from fedtlu_fast.selection.agreement import knapsack
from fedtlu_fast.selection.agreement.knapsack import in_python, knapsacks

NODES = 10_000


def drawn(seed, layers, rows=3):
    """Draws values (some of them equal, 0 or negative), rooms, costs of several kinds, and reach or none."""
    rng = np.random.default_rng([seed, layers])
    costs = [rng.random(layers) + 0.01, rng.choice([0.0, 1.0, 2.5], layers), np.ones(layers)][seed % 3]
    reach = np.sort(rng.choice([0.0, 1.0, 2.0, rng.random()], layers))[::-1] * (seed % 2)
    values = rng.normal(0.5, 1, (rows, layers)) if seed % 5 else rng.integers(-1, 4, (rows, layers)) * 1.0
    return values, rng.uniform(0, costs.sum() + reach[0], rows), costs, reach.copy()


def best_of_all(values, room, costs, reach):
    layers = range(len(values))
    sets = [list(some) for size in range(len(values) + 1) for some in combinations(layers, size)]
    fit = [some for some in sets if not some or costs[some].sum() + reach[some[0]] <= room]
    return max(values[some].sum() for some in fit)


@pytest.mark.parametrize("seed", range(30))
def test_both_programmes_give_the_same_bits(seed):
    if knapsack.extension is None:
        pytest.skip("built without C++")
    for layers in (1, 2, 9, 24, 31):
        problem = drawn(seed, layers)
        for nodes in (0, 5, 60, NODES):
            for ours, theirs in zip(knapsacks(*problem, nodes), in_python(*problem, nodes), strict=True):
                assert ours.dtype == theirs.dtype
                assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("nodes", [0, 1, 4, NODES])
def test_sets_fit_and_bounds_hold_wherever_the_search_ends(seed, nodes):
    values, rooms, costs, reach = drawn(seed, 7)
    mask, best, upper = knapsacks(values, rooms, costs, reach, nodes)
    assert ((mask * costs).sum(1) + (mask * reach).max(1) <= rooms + 1e-12).all()
    assert (values[mask] > 0).all()
    assert best == pytest.approx((values * mask).sum(1))
    optimum = np.array([best_of_all(*row, costs, reach) for row in zip(values, rooms, strict=True)])
    assert (upper >= optimum - 1e-12).all()
    assert (upper >= best).all()
    if nodes == NODES:
        assert best == pytest.approx(optimum)
        assert (upper == best).all()


def test_nothing_to_choose_from_is_an_empty_set():
    for rows, layers in ((0, 3), (2, 0)):
        mask, best, upper = knapsacks(
            np.zeros((rows, layers)), np.ones(rows), np.ones(layers), np.zeros(layers), NODES
        )
        assert mask.shape == (rows, layers)
        assert best.tolist() == upper.tolist() == [0.0] * rows


def test_many_layers_of_a_few_kinds_are_solved_to_the_end():
    rng = np.random.default_rng(1)
    costs = rng.choice([1.0, 2.5, 4.7], 200)
    _, best, upper = knapsacks(rng.random((20, 200)), rng.uniform(5, 200, 20), costs, np.zeros(200), 4096)
    assert (upper == best).all()


def test_the_binding_refuses_sizes_that_do_not_match():
    native = pytest.importorskip("fedtlu_fast._native", exc_type=ImportError)
    two, six = np.ones(2), np.ones(6)
    for arguments, name in [
        ((six, two, np.ones(3), two, 9), "reach"),
        ((six, two, two, two, 9), "values"),
        ((six.reshape(2, 3), two, np.ones(3), np.ones(3), 9), "values"),
    ]:
        with pytest.raises(ValueError, match=name):
            native.knapsacks(*arguments)
    with pytest.raises(TypeError, match="rooms"):
        native.knapsacks(six, two.astype(np.float32), np.ones(3), np.ones(3), 9)
    # What no caller passes must not crash: such layers are left out.
    wild = np.array([np.nan, np.inf, -np.inf, 1.0])
    mask, _, _ = native.knapsacks(
        np.tile(wild, 4), np.ones(4), np.array([1.0, 0.0, np.nan, -1.0]), np.zeros(4), 99
    )
    assert not mask[:, [0, 2, 3]].any()
