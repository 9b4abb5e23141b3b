"""Tests of the check that numbers are finite and not too large."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from fedtlu_fast.soundness import LARGEST, sound

NUMBERS = st.floats(width=32) | st.sampled_from(
    [LARGEST, -LARGEST, 0.99 * LARGEST, 0.6 * LARGEST, 0.4 * LARGEST]
)


@given(st.lists(NUMBERS, max_size=70))
def test_every_number_lies_between_the_limits(numbers):
    vector = torch.tensor(numbers, dtype=torch.float32)
    expected = all(math.isfinite(number) and abs(number) < LARGEST for number in vector.tolist())
    assert sound(vector) == expected
