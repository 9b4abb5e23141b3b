"""Tests `quotas`: the number of blocks kept in each group, and values of `keep` that are refused."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtlu_fast import InputError, ParameterLayout
from fedtlu_fast.selection import quotas


def layout_of(**sizes):
    """Makes groups h.*, g.*, ... of so many blocks; each group has its own shape."""
    shapes = {
        f"{name}.{index}.weight": (place + 2, 3)
        for place, (name, size) in enumerate(sizes.items())
        for index in range(size)
    }
    return ParameterLayout.from_shapes({**shapes, "head.weight": (9, 9)})


SIX_FOUR = layout_of(h=6, g=4)


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (1, (1, 1)),
        (2, (2, 2)),
        (5, (5, 4)),
        (6, (6, 4)),
        (1.0, (6, 4)),
        (0.5, (3, 2)),
        (0.51, (4, 3)),
        (1e-9, (1, 1)),
        ({"h.*": 2, "g.*": 0.25}, (2, 1)),
        ({"g.*": 4, "h.*": 1.0}, (6, 4)),
    ],
    ids=str,
)
def test_numbers_fractions_and_mappings(keep, expected):
    assert [group.name for group in SIX_FOUR.groups] == ["h.*", "g.*"]
    assert quotas(SIX_FOUR, keep) == expected


@pytest.mark.parametrize(("keep", "size", "expected"), [(0.07, 100, 7), (0.28, 25, 7), (0.14, 50, 7)])
def test_a_fraction_is_taken_as_it_is_written(keep, size, expected):
    assert ceil(keep * size) == expected + 1, "float arithmetic gets it wrong"
    assert quotas(layout_of(h=size), keep) == (expected,)


@given(st.integers(1, 1000), st.integers(2, 120))
def test_fractions_are_rounded_up_and_never_keep_nothing(thousandths, size):
    (kept,) = quotas(layout_of(h=size), thousandths / 1000)
    assert kept == ceil(Fraction(thousandths, 1000) * size)
    assert 1 <= kept <= size


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (0, "selection.keep: got 0; expected 1 or more"),
        (-3, "got -3; expected 1 or more"),
        (0.0, r"got 0.0; expected a fraction in \(0, 1\]"),
        (-0.5, "fraction"),
        (1.5, r"got 1.5; expected a fraction in \(0, 1\], or a whole number without a decimal point"),
        (2.0, "whole number without a decimal point"),
        (float("nan"), "got nan"),
        (float("inf"), "got inf"),
        (True, "got True; expected a whole number of blocks"),
        ("2", "got '2'; expected a whole number"),
        (None, "got None"),
        (7, r"got 7; expected at most 6, the largest size of a group: h\.\* \(6\), g\.\* \(4\)"),
        ({"h.*": 1}, r"a number for group g\.\* too"),
        ({}, r"a number for group h\.\* too"),
        ({"h.*": 1, "g.*": 1, "k.*": 1}, r"got 'k\.\*'; expected the name of a group: h\.\* \(6\)"),
        ({"h.*": 1, "g.*": 5}, r"selection.keep\[g\.\*\]: got 5; expected at most 4"),
        ({"h.*": 0, "g.*": 1}, r"selection.keep\[h\.\*\]: got 0; expected 1 or more"),
        ({"h.*": 1, "g.*": 1.1}, r"selection.keep\[g\.\*\]: got 1.1"),
        ({"h.*": False, "g.*": 1}, r"selection.keep\[h\.\*\]: got False"),
    ],
    ids=str,
)
def test_what_no_group_can_give_is_refused(keep, message):
    with pytest.raises(InputError, match=message):
        quotas(SIX_FOUR, keep)


def test_a_model_without_like_blocks_is_refused_with_a_way_out():
    lonely = ParameterLayout.from_shapes({"a.weight": (2,), "b.weight": (3,)})
    with pytest.raises(InputError, match=r"selection.granularity: got 'block'.*module or tensor.*full"):
        quotas(lonely, 1)
