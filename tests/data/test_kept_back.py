"""Tests the split of samples that clients keep back."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast.data.kept_back import split_kept_back, spread
from fedtlu_fast.data.population import Samples


def kept(count):
    rows = np.random.default_rng(count).permutation(count + 3)[:count]
    return Samples((torch.arange(count + 3),), rows)


@examples(60)
@given(st.integers(0, 40), st.floats(0, 1, exclude_max=True))
def test_every_sample_is_on_one_side_and_a_test_is_left(count, share):
    given_ = kept(count)
    looked, test = split_kept_back(given_, share)
    assert looked.pool is test.pool is given_.pool
    assert sorted([*looked.rows, *test.rows]) == sorted(given_.rows)
    if share and count:
        assert len(looked) >= 1
        assert len(test) >= (count > 1)
        assert abs(len(looked) - share * count) <= 1
    else:
        assert len(looked) == 0


@pytest.mark.parametrize(
    ("count", "share", "places"),
    [
        (10, 0.3, [0, 3, 6]),
        (5, 0.5, [0, 2]),
        (4, 0.99, [0, 1, 2]),
        (4, 0.01, [0]),
        (1, 0.5, [0]),
        (3, 0.0, []),
    ],
)
def test_the_samples_to_look_at_are_spread_evenly(count, share, places):
    given_ = kept(count)
    looked, test = split_kept_back(given_, share)
    assert looked.rows.tolist() == given_.rows[places].tolist()
    assert test.rows.tolist() == [row for at, row in enumerate(given_.rows) if at not in places]


def test_no_place_comes_twice():
    for size in range(12):
        for wanted in range(size + 1):
            assert len(set(spread(size, wanted).tolist()) & set(range(size))) == wanted
