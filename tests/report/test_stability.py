"""Rank stability against the definitions counted out pair by pair."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast import ParameterLayout
from fedtlu_fast.report.aggregate.stability import (
    GroupHistory,
    Spread,
    group_histories,
    kendall_tau,
    overlap_by_chance,
    overlaps,
    rank_stability,
    taus,
)


def counted(first, second):
    """Tau-b by its definition, over all pairs."""
    pairs = list(combinations(range(len(first)), 2))
    agree = [math.copysign(1, x) if x else 0 for x in (first[i] - first[j] for i, j in pairs)]
    other = [math.copysign(1, x) if x else 0 for x in (second[i] - second[j] for i, j in pairs)]
    untied = sum(map(bool, agree)), sum(map(bool, other))
    if not all(untied):
        return math.nan
    return sum(a * b for a, b in zip(agree, other, strict=True)) / math.sqrt(untied[0] * untied[1])


def tau(first, second):
    return float(kendall_tau(np.array([first], float), np.array([second], float))[0])


def test_tau_of_the_example_in_scipys_documentation():
    """scipy.stats.kendalltau([12, 2, 1, 12, 2], [1, 4, 7, 1, 0]), as printed there."""
    assert tau([12, 2, 1, 12, 2], [1, 4, 7, 1, 0]) == pytest.approx(-0.47140452079103173, rel=1e-15)


def test_tau_by_hand():
    assert tau([1, 2, 3, 4], [10, 20, 30, 40]) == 1
    assert tau([1, 2, 3, 4], [4, 3, 2, 1]) == -1
    assert tau([1, 2, 3, 4], [2, 1, 4, 3]) == pytest.approx(1 / 3)
    assert math.isnan(tau([1, 1, 1], [1, 2, 3]))
    assert math.isnan(tau([1, math.nan, 1], [1, 2, 3]))


@examples(150)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=2, max_size=9))
def test_tau_is_the_count_of_pairs(columns):
    first, second = zip(*columns, strict=True)
    expected = counted(first, second)
    got = tau(first, second)
    assert (math.isnan(got) and math.isnan(expected)) or got == pytest.approx(expected, abs=1e-12)


def test_tau_agrees_with_scipy_where_there_is_one():
    stats = pytest.importorskip("scipy.stats")
    draws = np.random.default_rng(1)
    first, second = draws.integers(0, 5, (2, 50, 7)).astype(float)
    expected = [stats.kendalltau(a, b).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(kendall_tau(first, second), expected, atol=1e-12)


def test_overlap_is_jaccards():
    first = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], bool)
    second = np.array([[0, 1, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
    np.testing.assert_array_equal(overlaps(first, second), [1 / 3, 1, 0, np.nan])


@examples(40)
@given(st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(0, n))))
def test_overlap_by_chance_is_the_mean_over_all_sets(case):
    blocks, first, second = case
    if not first + second:
        assert math.isnan(overlap_by_chance(*case))
        return
    one = set(range(first))
    drawn = [set(other) for other in combinations(range(blocks), second)]
    expected = sum(len(one & other) / len(one | other) for other in drawn) / len(drawn)
    assert overlap_by_chance(*case) == pytest.approx(expected, rel=1e-12)


def test_spread_leaves_out_what_is_undefined():
    assert Spread.of([1.0, math.nan, 3.0]) == Spread(2.0, math.sqrt(2), 2)
    assert Spread.of([4.0]) == Spread(4.0, None, 1)
    assert Spread.of([]) == Spread.of([math.nan]) == Spread(None, None, 0)


def history(scores, chosen, group="h.*"):
    found = np.array(scores, float)
    names = tuple(f"h.{index}" for index in range(found.shape[1]))
    return GroupHistory(group, names, tuple(range(3, 3 + len(found))), found, np.array(chosen, bool))


def test_table_of_one_group():
    first = history([[1, 2, 3], [1, 3, 2], [3, 2, 1]], [[0, 0, 1], [0, 1, 0], [1, 0, 0]])
    one, two = rank_stability([first])
    assert (one.group, one.lag, two.lag) == ("h.*", 1, 2)
    assert one.tau.mean == pytest.approx((1 / 3 - 1 / 3) / 2, abs=1e-15)
    assert (two.tau.mean, two.tau.std, two.tau.count) == (-1, None, 1)
    assert (one.overlap.mean, one.overlap.count) == (0, 2)
    assert one.by_chance == pytest.approx(1 / 3)
    assert taus(first).tolist() == pytest.approx([1 / 3, -1 / 3])


def test_groups_are_told_apart_and_together():
    steady = history([[1, 2]] * 4, [[0, 1]] * 4, "a")
    turning = history([[1, 2], [2, 1]] * 2, [[0, 1], [1, 0]] * 2, "b")
    rows = {(row.group, row.lag): row for row in rank_stability([steady, turning], lags=(1, 2, 5))}
    assert set(rows) == {(group, lag) for group in ("a", "b", None) for lag in (1, 2)}
    assert (rows["a", 1].tau.mean, rows["b", 1].tau.mean, rows["b", 2].tau.mean) == (1, -1, 1)
    assert (rows[None, 1].tau.mean, rows[None, 1].tau.count) == (0, 6)
    assert (rows[None, 1].overlap.mean, rows[None, 2].overlap.mean) == (0.5, 1)
    assert [row.group for row in rank_stability([turning, steady])] == ["b", "b", "a", "a", None, None]


def test_warmup_rounds_have_no_part():
    layout = ParameterLayout.from_shapes({"h.0.w": (2,), "h.1.w": (2,), "head": (3,)})

    def row(index, warmup, first, selected):
        scores = {"h.0": first, "h.1": 1.0, "head": 9.0}
        return {"round": index, "warmup": warmup, "block_scores": scores, "selected": selected}

    rows = [row(1, True, 5.0, ["h.0", "h.1"]), row(2, False, 0.5, ["h.1", "head"]), row(3, False, None, [])]
    (found,) = group_histories(rows, layout)
    assert (found.blocks, found.rounds) == (("h.0", "h.1"), (2, 3))
    np.testing.assert_array_equal(found.scores, [[0.5, 1], [np.nan, 1]])
    assert found.chosen.tolist() == [[False, True], [False, False]]
    assert group_histories(rows[:1], layout)[0].scores.shape == (0, 2)
    assert rank_stability(group_histories(rows[:2], layout)) == []
