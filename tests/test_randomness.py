"""Tests that draws depend only on (seed, purpose, round, client), not on earlier draws."""

import random
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch

from fedtlu_fast.randomness import generator, key, torch_seeded

WHERE = list(product((0, 1), "ab", (0, 1), (0, 1)))


def test_every_place_has_a_key_of_its_own():
    places = list(product((0, 1, 11, 2**70), ("a", "b", "a b"), range(12), range(12)))
    keys = [key(*place) for place in places]
    assert len(set(keys)) == len(places)
    assert all(0 <= value < 2**128 for value in keys)


def test_keys_are_the_same_in_every_process_and_version():
    """A run that is resumed after an upgrade must continue with the same draws."""
    code = "from fedtlu_fast.randomness import *; print(key(5, 'x', 1, 2), generator(5, 'x').random())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == [str(key(5, "x", 1, 2)), str(generator(5, "x").random())]
    assert key(42, "cohort", 1, 0) == 0x50E2F74FD7C88439D675E50DDF1F2FDE
    assert generator(42, "cohort", 1).integers(1000, size=4).tolist() == [782, 887, 299, 233]


@pytest.mark.parametrize("place", WHERE, ids=str)
def test_a_generator_starts_anew_each_time(place):
    first = generator(*place)
    first.random(100)
    assert np.array_equal(generator(*place).random(5), generator(*place).random(5))
    others = [generator(*other).random() for other in WHERE if other != place]
    assert generator(*place).random() not in others


def test_draws_do_not_touch_the_global_generators():
    states = np.random.get_state()[1].copy(), torch.get_rng_state(), random.getstate()  # noqa: NPY002
    generator(0, "x").random(10)
    with torch_seeded(0, "x"):
        torch.rand(10)
    assert np.array_equal(np.random.get_state()[1], states[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[1])
    assert random.getstate() == states[2]


def test_torch_is_seeded_inside_whatever_it_was_outside():
    def draw(*place):
        with torch_seeded(*place):
            return torch.rand(4).tolist()

    torch.manual_seed(1)
    first = draw(3, "dropout", 1, 2)
    torch.manual_seed(2)
    torch.rand(7)
    assert draw(3, "dropout", 1, 2) == first
    assert len({str(draw(*place)) for place in WHERE}) == len(WHERE)


def test_torch_is_as_it_was_after_an_error():
    def fail():
        with torch_seeded(0, "x"):
            torch.rand(3)
            raise ZeroDivisionError

    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_are_uniform():
    values = np.concatenate([generator(0, "uniform", index).random(50) for index in range(400)])
    counts = np.histogram(values, bins=20, range=(0, 1))[0]
    # Chi-squared with 19 degrees of freedom: 60 has a probability of 4e-6 (and the seed is fixed).
    assert ((counts - 1000.0) ** 2 / 1000).sum() < 60
