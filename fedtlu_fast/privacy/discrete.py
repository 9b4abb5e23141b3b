"""Exact draws of discrete Gaussian noise, by integer arithmetic (Canonne et al., arXiv 2004.00010).

An integer x has the probability ``exp(-x^2 / (2 s^2))``, up to a factor. Gaussian noise in floating point has
gaps and rounding that can tell which number it was added to (Mironov, CCS 2012). Here nothing is rounded: all
draws are comparisons of integers, and the noise is an integer that is added to integers.

The functions are vectorised versions of the paper's algorithms 1 to 3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.errors import InputError

Integers = NDArray[np.int64]
MOST = 2**12
"""The largest deviation: up to it all products fit into 63 bits, for tries up to 180 deviations from zero.
One that is further away has the probability exp(-180)."""


def discrete_gaussian(draws: np.random.Generator, deviation: int, count: int) -> Integers:
    """Draws integers from the discrete Gaussian distribution (algorithm 3).

    Args:
        draws: the source of chance.
        deviation: the parameter s, from 1 to 4096; the standard deviation is nearly the same.
        count: number of draws.

    Returns:
        [count] int64.

    Raises:
        InputError: the deviation is no integer in this range.
    """
    if not isinstance(deviation, int) or not 1 <= deviation <= MOST:
        raise InputError("deviation", deviation, f"an integer from 1 to {MOST}")
    scale, square = deviation + 1, deviation**2
    found = np.zeros(count, np.int64)
    waiting = np.arange(count)
    while len(waiting):
        tried = discrete_laplace(draws, scale, len(waiting))
        # exp(-(|y| - s^2 / t)^2 / (2 s^2)) with t = scale
        kept = _bernoulli_exp(draws, (np.abs(tried) * scale - square) ** 2, 2 * square * scale**2)
        found[waiting[kept]] = tried[kept]
        waiting = waiting[~kept]
    return found


def discrete_laplace(draws: np.random.Generator, scale: int, count: int) -> Integers:
    """Draws integers x with probabilities in proportion to ``exp(-|x| / scale)`` (algorithm 2).

    Args:
        draws: the source of chance.
        scale: an integer from 1.
        count: number of draws.
    """
    found = np.zeros(count, np.int64)
    waiting = np.arange(count)
    while len(waiting):
        rest = draws.integers(0, scale, len(waiting))
        accepted = _bernoulli_exp(draws, rest, scale)
        size = rest + scale * _geometric(draws, len(waiting))
        negative = draws.integers(0, 2, len(waiting)).astype(np.bool_)
        kept = accepted & ~(negative & (size == 0))  # zero would count twice
        found[waiting[kept]] = np.where(negative, -size, size)[kept]
        waiting = waiting[~kept]
    return found


def _geometric(draws: np.random.Generator, count: int) -> Integers:
    """Counts how often in a row a draw with probability exp(-1) succeeds."""
    found = np.zeros(count, np.int64)
    going = np.arange(count)
    while len(going):
        going = going[_bernoulli_exp_below_one(draws, np.ones(len(going), np.int64), 1)]
        found[going] += 1
    return found


def _bernoulli_exp(draws: np.random.Generator, numerators: Integers, denominator: int) -> NDArray[np.bool_]:
    """Draws true with probability ``exp(-numerator / denominator)``, for numerators from 0 (algorithm 1)."""
    whole, rest = np.divmod(numerators, denominator)
    found = np.ones(len(numerators), np.bool_)
    for step in range(int(whole.max(initial=0))):
        asked = np.flatnonzero(found & (whole > step))
        if not len(asked):
            break
        found[asked] = _bernoulli_exp_below_one(draws, np.ones(len(asked), np.int64), 1)
    asked = np.flatnonzero(found)
    found[asked] = _bernoulli_exp_below_one(draws, rest[asked], denominator)
    return found


def _bernoulli_exp_below_one(
    draws: np.random.Generator, numerators: Integers, denominator: int
) -> NDArray[np.bool_]:
    """Draws true with probability ``exp(-numerator / denominator)``, for a quotient from 0 to 1.

    The number of successes in a row, of which the k-th has the probability ``numerator / (denominator k)``,
    is even with this probability: it is the alternating series of the exponential function.
    """
    even = np.ones(len(numerators), np.bool_)
    going, step = np.arange(len(numerators)), 1
    while len(going):
        going = going[draws.integers(0, denominator * step, len(going)) < numerators[going]]
        even[going] = ~even[going]
        step += 1
    return even
