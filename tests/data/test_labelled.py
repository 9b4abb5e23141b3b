"""Samples with labels: the draw of the test, and the codes of names."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtlu_fast import InputError
from fedtlu_fast.data.dealing import Attribute
from fedtlu_fast.data.labelled import by_name, drawn_test, take


def known(codes):
    """Returns random attributes: a label and one of three domains for each sample."""
    labels = Attribute(np.asarray(codes, np.int64), tuple("0123456789"))
    return {"label": labels, "domain": Attribute(np.arange(len(codes)) % 3, ("a", "b", "c"))}


@given(st.lists(st.integers(0, 9), min_size=2, max_size=200), st.floats(0.05, 0.95))
def test_a_share_of_every_kind_is_kept_for_the_test(codes, share):
    if not 1 <= int(len(codes) * share) < len(codes):
        return
    attributes = known(codes)
    train, test = drawn_test(attributes, share)
    assert sorted([*train, *test]) == list(range(len(codes)))
    assert sorted(train) == train.tolist()
    assert sorted(test) == test.tolist()
    assert len(test) == int(len(codes) * share)
    kept = [(codes[row], row % 3) for row in test]
    for label in set(codes):
        of_label = [pair for pair in kept if pair[0] == label]
        assert abs(len(of_label) - codes.count(label) * share) < 1.001
        for domain in range(3):
            held = sum(own == label and row % 3 == domain for row, own in enumerate(codes))
            assert abs(of_label.count((label, domain)) - held * share) < 1.001


def test_the_test_is_drawn_and_always_the_same():
    _, test = drawn_test(known([0] * 200), 0.25)
    assert test.tolist() == drawn_test(known([0] * 200), 0.25)[1].tolist()
    assert 15 < (test < 100).sum() < 35
    assert len(set(np.diff(test).tolist())) > 3, "not every fourth"


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_a_share_that_keeps_nothing_is_refused(share):
    with pytest.raises(InputError, match=r"data.test_fraction.*a share of 9 samples"):
        drawn_test(known([0, 1, 2] * 3), share)


def test_names_have_codes_in_their_order():
    assert by_name(["b", "a", "b"]).codes.tolist() == [1, 0, 1]
    assert by_name(["b", "a", "b"]).names == ("a", "b")
    found = by_name(["b", "c"], ["c", "x", "b"])
    assert (found.codes.tolist(), found.names) == ([2, 0], ("c", "x", "b"))


def test_taking_rows_keeps_the_names():
    found = take(known([3, 1, 2]), np.array([2, 0]))
    assert found["label"].codes.tolist() == [2, 3]
    assert found["domain"].codes.tolist() == [2, 0]
    assert found["domain"].names == ("a", "b", "c")
