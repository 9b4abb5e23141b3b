"""Discrete Gaussian and Laplace noise: probabilities, moments, and draws that do not depend on each other."""

from math import exp, sqrt

import numpy as np
import pytest

from fedtlu_fast import InputError
from fedtlu_fast.privacy.discrete import discrete_gaussian, discrete_laplace
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
