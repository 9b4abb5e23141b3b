"""Tests that the slow tests run the cases that the quick tests leave out."""

from types import SimpleNamespace

import pytest
from support import sampling


class Case:
    """Imitates a case of a parametrized test for `mark_slow`."""

    def __init__(self, number, marker, **params):
        self.nodeid = f"tests/test_it.py::test_it[{number}]"
        self.marker, self.slow = marker, False
        self.callspec = SimpleNamespace(params=params)

    def get_closest_marker(self, name):
        return self.marker

    def add_marker(self, name):
        self.slow = name == "slow"


def quick(cases, seed, monkeypatch):
    monkeypatch.setattr(sampling, "SEED", seed)
    sampling.mark_slow(cases)
    return [case for case in cases if not case.slow]


def cases_of(**marked):
    marker = pytest.mark.sweep(**marked).mark
    backends = [("native", "cpu"), ("triton", "cpu")]
    return [Case(number, marker, backend=backend) for number in range(10) for backend in backends]


def test_some_cases_of_every_backend_are_quick_and_the_seed_says_which(monkeypatch):
    first, again, other = (quick(cases_of(quick=3), seed, monkeypatch) for seed in (1, 1, 2))
    for backend in ("native", "triton"):
        assert sum(case.callspec.params["backend"][0] == backend for case in first) == 3
    nodes = [[case.nodeid for case in found] for found in (first, again, other)]
    assert nodes[0] == nodes[1] != nodes[2]


def test_cases_of_other_backends_all_stay(monkeypatch):
    found = quick(cases_of(quick=3, backend="triton"), 1, monkeypatch)
    backends = [case.callspec.params["backend"][0] for case in found]
    assert (backends.count("native"), backends.count("triton")) == (10, 3)


def test_a_test_without_the_marker_stays(monkeypatch):
    assert len(quick([Case(number, None) for number in range(5)], 1, monkeypatch)) == 5


def test_a_sample_keeps_the_order_and_all_of_it_is_all(monkeypatch):
    monkeypatch.setattr(sampling, "SEED", 5)
    drawn = sampling.sample(range(100), 6)
    assert len(set(drawn)) == 6
    assert drawn == sorted(drawn) == sampling.sample(range(100), 6)
    assert sampling.sample(range(100), sampling.ALL) == list(range(100))


@pytest.mark.parametrize(("full", "count"), [(False, 25), (True, 100)])
def test_the_quick_profile_draws_a_quarter_of_the_examples(monkeypatch, full, count):
    monkeypatch.setattr(sampling, "FULL", full)
    assert sampling.examples(100).max_examples == count
    assert sampling.examples(8).max_examples == (8 if full else 4)
