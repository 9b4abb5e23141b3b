"""Exact draws of discrete Gaussian noise, by integer arithmetic (Canonne et al., arXiv 2004.00010).

An integer x has the probability ``exp(-x^2 / (2 s^2))``, up to a factor. Gaussian noise in floating point has
gaps and rounding that can tell which number it was added to (Mironov, CCS 2012). Here nothing is rounded: all
draws are comparisons of integers, and the noise is an integer that is added to integers.

The functions are vectorised versions of the paper's algorithms 1 to 3. `Grid` makes integers of a model's
changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, frexp, ldexp
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.errors import InputError

Integers = NDArray[np.int64]
MOST = 2**12
"""The largest deviation: up to it all products fit into 63 bits, for tries up to 180 deviations from zero.
One that is further away has the probability exp(-180)."""
TRIES = 4
"""How often a change is scaled down, until rounding has not made it longer than the clipping norm."""


class IntegerDraws(Protocol):
    """A source of whole numbers, such as `numpy.random.Generator` or `noise.SystemDraws`."""

    def integers(self, low: int, high: int, size: int) -> NDArray[Any]:
        """Returns so many numbers [size] int64, each from `low` to `high` - 1 with the same probability."""
        ...


@dataclass(frozen=True)
class Grid:
    """Whole multiples of a step, with noise of a whole number of steps.

    Attributes:
        step: the distance of neighbouring numbers, a power of two.
        deviation: the parameter of one draw of the noise, in steps.
        shares: number of clients that add one draw each, the server adding those of clients that do not
            arrive; 0: the server adds one draw.
    """

    step: float
    deviation: int
    shares: int = 0

    @classmethod
    def of(cls, scale: float, shares: int = 0) -> Grid:
        """Returns the finest grid for draws with at least this standard deviation, by at most 1/2048 more."""
        fraction, exponent = frexp(scale / MOST)
        step = ldexp(1.0, exponent - 1 if fraction == 0.5 else exponent)  # 0.5: a power of two already
        return cls(step, ceil(scale / step), shares)

    def whole(self, change: NDArray[np.floating[Any]], clip: float) -> Integers:
        """Returns the change as whole numbers of steps [P], together no longer than the clipping norm.

        They are the nearest ones, if need be of a change that was scaled down a little.

        Args:
            change: [P], no longer than the clipping norm.
            clip: the clipping norm.
        """
        exact, factor = change.astype(np.float64) / self.step, 1.0
        for _ in range(TRIES):
            found = np.rint(exact * factor)
            norm = float(np.linalg.norm(found)) * self.step
            if norm <= clip:
                return found.astype(np.int64)
            factor *= clip / norm * (1 - 1e-9)
        return np.trunc(exact).astype(np.int64)

    def share(self, draws: IntegerDraws, count: int) -> Integers:
        """Returns the noise [count] that one client adds, in steps."""
        return self._noise(draws, count, 1 if self.shares else 0)

    def rest(self, draws: IntegerDraws, count: int, clients: int) -> Integers:
        """Returns the noise [count] that the server adds to the sum of so many clients, in steps."""
        return self._noise(draws, count, max(0, self.shares - clients) if self.shares else 1)

    def _noise(self, draws: IntegerDraws, count: int, times: int) -> Integers:
        found = np.zeros(count, np.int64)
        for _ in range(times):
            found += discrete_gaussian(draws, self.deviation, count)
        return found


def discrete_gaussian(draws: IntegerDraws, deviation: int, count: int) -> Integers:
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


def discrete_laplace(draws: IntegerDraws, scale: int, count: int) -> Integers:
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


def _geometric(draws: IntegerDraws, count: int) -> Integers:
    """Counts how often in a row a draw with probability exp(-1) succeeds."""
    found = np.zeros(count, np.int64)
    going = np.arange(count)
    while len(going):
        going = going[_bernoulli_exp_below_one(draws, np.ones(len(going), np.int64), 1)]
        found[going] += 1
    return found


def _bernoulli_exp(draws: IntegerDraws, numerators: Integers, denominator: int) -> NDArray[np.bool_]:
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
    draws: IntegerDraws, numerators: Integers, denominator: int
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
