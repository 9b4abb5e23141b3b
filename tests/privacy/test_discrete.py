"""Discrete Gaussian and Laplace noise: probabilities, moments, and draws that do not depend on each other."""

from math import exp, frexp, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast import InputError
from fedtlu_fast.privacy.discrete import MOST, Grid, discrete_gaussian, discrete_laplace
from fedtlu_fast.privacy.noise import SystemDraws
from fedtlu_fast.randomness import generator


def compared(found, weight, reach):
    """The largest deviation of a frequency from its probability, in standard errors."""
    support = np.arange(-reach, reach + 1)
    chances = np.array([weight(x) for x in support])
    chances /= chances.sum()
    counts = np.array([(found == x).sum() for x in support])
    errors = np.sqrt(len(found) * chances * (1 - chances))
    return np.abs(counts - len(found) * chances)[errors > 2] / errors[errors > 2]


@pytest.mark.parametrize("deviation", [1, 2, 5])
def test_frequencies_are_those_of_the_discrete_gaussian(deviation):
    found = discrete_gaussian(generator(3, "test"), deviation, 200_000)
    assert found.dtype == np.int64
    assert compared(found, lambda x: exp(-(x**2) / (2 * deviation**2)), 8 * deviation).max() < 4.5


@pytest.mark.parametrize("scale", [1, 3])
def test_frequencies_are_those_of_the_discrete_laplace(scale):
    found = discrete_laplace(generator(4, "test"), scale, 200_000)
    assert compared(found, lambda x: exp(-abs(x) / scale), 20 * scale).max() < 4.5


def test_moments_of_a_large_deviation_are_those_of_a_gaussian():
    count = 50_000
    found = discrete_gaussian(generator(5, "test"), 4096, count) / 4096
    assert abs(found.mean()) < 5 / sqrt(count)
    assert found.var() == pytest.approx(1, abs=5 * sqrt(2 / count))
    assert (found**4).mean() == pytest.approx(3, abs=5 * sqrt(96 / count))
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 5 / sqrt(count)


def test_draws_follow_from_their_source():
    first, again = (discrete_gaussian(generator(6, "test"), 7, 100) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, discrete_gaussian(generator(7, "test"), 7, 100))
    assert discrete_gaussian(generator(6, "test"), 7, 0).shape == (0,)


@pytest.mark.parametrize("deviation", [0, -1, 4097, 1.5])
def test_other_deviations_are_refused(deviation):
    with pytest.raises(InputError, match=r"deviation: got .*an integer from 1 to 4096"):
        discrete_gaussian(generator(0, "test"), deviation, 1)


def test_the_systems_draws_work_as_a_source_of_discrete_noise():
    found = discrete_gaussian(SystemDraws(), 3, 20_000)
    assert found.var() == pytest.approx(9, rel=0.1)
    assert not np.array_equal(found, discrete_gaussian(SystemDraws(), 3, 20_000))


@pytest.mark.parametrize("width", [1, 2, 3, 10, 2**62 + 1])
def test_the_systems_whole_numbers_are_uniform(width):
    """Of 2^64 words nearly a quarter is drawn again for the last width."""
    found = SystemDraws().integers(-1, width - 1, 20_000)
    assert found.dtype == np.int64
    assert found.min() >= -1
    assert found.max() < width - 1
    if width <= 10:
        each = 20_000 / width
        assert np.abs(np.bincount(found + 1, minlength=width) - each).max() < 5 * sqrt(each)
    else:
        assert (found + 1).mean() == pytest.approx(width / 2, rel=0.02)


@examples(50)
@given(st.floats(1e-6, 1e3))
def test_a_grid_has_the_noise_that_was_asked_for_in_the_finest_steps(scale):
    grid = Grid.of(scale)
    assert frexp(grid.step)[0] == 0.5
    assert MOST / 2 <= grid.deviation <= MOST
    assert scale <= grid.step * grid.deviation <= scale * (1 + 2 / MOST)


@examples(50)
@given(st.integers(1, 2000), st.floats(0.1, 100.0), st.floats(0.01, 2.0), st.integers(0, 2**31))
def test_whole_steps_of_a_change_are_near_it_and_no_longer_than_the_norm(count, noise, length, seed):
    clip, grid = 0.3, Grid.of(0.3 * noise)
    change = np.random.default_rng(seed).standard_normal(count)
    change *= min(length, 1) * clip / np.linalg.norm(change)
    found = grid.whole(change, clip)
    assert found.dtype == np.int64
    assert np.linalg.norm(found) * grid.step <= clip
    if length < 0.5 and sqrt(count) * grid.step < clip:
        assert np.abs(found * grid.step - change).max() <= grid.step / 2


def test_the_server_adds_what_clients_have_not():
    draws, grid = generator(1, "test"), Grid(1.0, 100, shares=4)
    assert grid.share(draws, 40_000).var() == pytest.approx(100**2, rel=0.05)
    assert grid.rest(draws, 40_000, 1).var() == pytest.approx(3 * 100**2, rel=0.05)
    assert not grid.rest(draws, 10, 4).any()
    alone = Grid(1.0, 100)
    assert not alone.share(draws, 10).any()
    assert alone.rest(draws, 40_000, 3).var() == pytest.approx(100**2, rel=0.05)
