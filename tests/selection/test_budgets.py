"""Tests budgets: they depend on the client alone, have the right distribution, and are cheap for millions."""

import time
from math import erf, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast.parts import make
from fedtlu_fast.registry import find

SHARES = {"unit": "flops"}
KINDS = [
    {"amount": 3},
    {"amount": 0.3, **SHARES},
    {"kind": "uniform", "low": 2, "high": 5},
    {"kind": "uniform", "low": 0.1, "high": 0.4, **SHARES},
    {"kind": "half_normal"},
    {"kind": "half_normal", "low": 0.1, "high": 1, "scale": 0.2, **SHARES},
    {"kind": "list", "values": [1, 2, 4]},
    {"kind": "classes", "classes": {"a": {"share": 0.7, "amount": 1}, "b": {"share": 0.3, "amount": 4}}},
]


def of(kind="equal", **given):
    return make(find("budget", kind, "kind"), given)


def drawn_by(budget, clients, seed):
    return budget.of(seed, range(clients))


@pytest.mark.parametrize("tree", KINDS, ids=str)
def test_a_budget_is_the_clients_whoever_else_is_asked_about(tree):
    budget = of(**tree)
    everybody = drawn_by(budget, 60, 7)
    assert everybody.dtype == (np.int64 if budget.unit == "layers" else np.float64)
    assert (drawn_by(budget, 200, 7)[:60] == everybody).all()
    some = [59, 3, 17, 3]
    assert (budget.of(7, some) == everybody[some]).all()
    assert (budget.of(7, np.array(some)) == everybody[some]).all()
    assert budget.of(7, []).shape == (0,)
    assert everybody.min() > 0
    if tree.get("kind", "equal") not in ("equal", "list"):
        assert (drawn_by(budget, 60, 8) != everybody).any()


def test_equal_and_lists_are_as_they_say():
    assert drawn_by(of(amount=2), 3, 0).tolist() == [2, 2, 2]
    assert drawn_by(of(amount=0.25, unit="parameters"), 2, 0).tolist() == [0.25, 0.25]
    assert drawn_by(of(kind="list", values=[1, 2, 4]), 5, 0).tolist() == [1, 2, 4, 1, 2]
    assert of(kind="list", values=[1, 2, 4]).of(0, [3 * 10**12 + 2]).tolist() == [4]


def chances_of(budget, clients=20_000):
    values, counts = np.unique(drawn_by(budget, clients, 1), return_counts=True)
    return dict(zip(values.tolist(), (counts / clients).tolist(), strict=True))


def test_uniform_takes_every_number_of_layers_as_often():
    assert chances_of(of(kind="uniform", low=2, high=5)) == {
        number: pytest.approx(0.25, abs=0.015) for number in (2, 3, 4, 5)
    }
    assert chances_of(of(kind="uniform", low=3, high=3)) == {3: 1.0}


def test_uniform_shares_fill_their_range():
    drawn = drawn_by(of(kind="uniform", low=0.2, high=0.6, **SHARES), 20_000, 1)
    assert 0.2 <= drawn.min() < 0.201
    assert 0.599 < drawn.max() <= 0.6
    assert np.quantile(drawn, [0.25, 0.5, 0.75]) == pytest.approx([0.3, 0.4, 0.5], abs=0.01)


@pytest.mark.parametrize("scale", [None, 0.7, 10.0])
def test_half_normal_layers_have_the_chances_of_the_truncated_half_normal(scale):
    sigma = 2.0 if scale is None else scale  # of four values, half the range
    upto = [erf(number / sigma / sqrt(2)) for number in range(5)]
    found = chances_of(of(kind="half_normal", low=3, high=6, scale=scale))
    for number in range(4):
        chance = (upto[number + 1] - upto[number]) / upto[4]
        assert found.get(3 + number, 0) == pytest.approx(chance, abs=0.015)
    assert set(found) <= {3, 4, 5, 6}


def test_half_normal_shares_are_truncated_and_not_heaped_at_the_end():
    budget = of(kind="half_normal", low=0.1, high=0.5, scale=0.2, **SHARES)
    drawn = drawn_by(budget, 20_000, 1)
    assert drawn.min() >= 0.1
    assert drawn.max() < 0.5
    within = erf(2 / sqrt(2))
    assert np.mean(drawn < 0.3) == pytest.approx(erf(1 / sqrt(2)) / within, abs=0.015)
    assert np.mean(drawn > 0.49) < 0.02
    assert drawn_by(of(kind="half_normal", low=0.3, high=0.3, **SHARES), 3, 1).tolist() == [0.3] * 3


def test_a_very_narrow_half_normal_stays_at_its_low_end():
    assert chances_of(of(kind="half_normal", low=1, high=9, scale=1e-9), 500) == {1: 1.0}


def test_classes_have_their_shares_on_average():
    classes = {name: {"share": share, "amount": amount} for name, share, amount in
               [("phone", 0.7, 1), ("tablet", 0.2, 2), ("server", 0.1, 6)]}  # fmt: skip
    assert chances_of(of(kind="classes", classes=classes)) == {
        1: pytest.approx(0.7, abs=0.015),
        2: pytest.approx(0.2, abs=0.015),
        6: pytest.approx(0.1, abs=0.015),
    }


def test_thirds_leave_no_client_without_a_class():
    third = 1 / 3
    classes = {name: {"share": third, "amount": amount} for name, amount in [("a", 1), ("b", 2), ("c", 3)]}
    assert set(drawn_by(of(kind="classes", classes=classes), 500, 0).tolist()) == {1, 2, 3}


@examples(50)
@given(st.data(), st.sampled_from(["uniform", "half_normal"]), st.integers(0, 2**40))
def test_no_draw_is_out_of_its_range(data, kind, seed):
    low = data.draw(st.integers(1, 20))
    high = data.draw(st.integers(low, 40))
    more = {"scale": data.draw(st.none() | st.floats(1e-3, 1e3))} if kind == "half_normal" else {}
    drawn = drawn_by(of(kind=kind, low=low, high=high, **more), 30, seed)
    assert ((drawn >= low) & (drawn <= high)).all()
    shares = drawn_by(of(kind=kind, low=low / 40, high=high / 40, **more, **SHARES), 30, seed)
    assert ((shares >= low / 40) & (shares <= high / 40)).all()


def test_a_cohort_of_very_many_clients_costs_next_to_nothing():
    budget = of(kind="half_normal", low=1, high=4)
    cohort = np.arange(100) * 10_000_019 + 10**9
    start = time.perf_counter()
    drawn = budget.of(3, cohort)
    assert time.perf_counter() - start < 0.25
    assert set(drawn.tolist()) == {1, 2, 3, 4}
