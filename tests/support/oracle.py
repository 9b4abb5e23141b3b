"""Computes the moments of a layer in more than float64, for tests and the fuzzer; needs NumPy only."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

EXTENDED = np.finfo(np.longdouble).nmant >= 63
"""Whether this machine has a float of 64 bits of mantissa; where it has none, fractions take its place."""


def wide(values: NDArray[Any]) -> NDArray[Any]:
    if EXTENDED:
        return values.astype(np.longdouble)
    return np.array([Fraction(value) for value in values.tolist()], dtype=object)


def moments(layer: ArrayLike) -> tuple[int, float, float, float, int]:
    """Returns count, mean, sum of squared deviations, largest magnitude and number of non-finite elements.

    The three in the middle are NaN with a non-finite element, and 0 without elements.
    """
    values = np.asarray(layer, dtype=np.float64).reshape(-1)
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad or not values.size:
        filler = math.nan if bad else 0.0
        return values.size, filler, filler, filler, bad
    largest = float(np.abs(values).max())
    if (values == values[0]).all():
        return values.size, float(values[0]), 0.0, largest, 0
    precise = wide(values)
    mean = precise.sum() / values.size
    away = precise - mean
    return values.size, float(mean), float((away * away).sum()), largest, 0


def assert_moments(row: ArrayLike, layer: ArrayLike, m2_rel: float = 1e-11, ratio_rel: float = 1e-13) -> None:
    """A backend's moments of one layer are right: mean / std to 1e-8 (+ `ratio_rel` of itself).

    What has to be exact is exact: count, largest magnitude, non-finite elements, a constant layer.
    """
    found = [float(value) for value in np.asarray(row).tolist()]
    count, mean, m2, abs_max, nonfinite = moments(layer)
    assert (found[0], found[4]) == (count, nonfinite)
    if nonfinite:
        assert all(math.isnan(value) for value in found[1:4]), found
        return
    assert found[3] == abs_max
    if m2 == 0:
        assert found[2] == 0, f"a constant layer has m2 {found[2]}"
        assert found[1] == mean
    elif m2 > 1e-300:  # smaller squares underflow float64
        truth = mean / math.sqrt(m2 / count)
        ratio = found[1] / math.sqrt(found[2] / count)
        assert abs(ratio - truth) <= 1e-8 + ratio_rel * abs(truth), (ratio, truth)
        assert math.isclose(found[2], m2, rel_tol=m2_rel), (found[2], m2)
