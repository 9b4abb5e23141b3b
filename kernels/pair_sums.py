"""Weighted sums of clients' changes, kept as pairs of float32: no element is computed in float64.

A weight is two float32, 48 bits. For each client, with d the change (and d_low what its subtraction rounded
away, if there is a base):

    p + e = w_high * d                        exactly (one fused multiply-add gives e)
    total, error = two_sum(total, p)          exactly
    low += error + e + w_low * d + w_high * d_low

The result is total + low, rounded once to float32. This is the dot product of Ogita, Rump and Oishi (see
`pairs.py`), without any loss in the high part.

The error. Let u = 2^-24, K the number of clients, and A = sum_k |w_k| |change_k|. For one client at most
4 u |w_k d_k| + u |total| is added to the low part, which so never exceeds (K + 4) u A, and whose K additions
round away at most u times that each. With what the terms themselves lose, and the weights, before the final
rounding the sum is off by at most

    (K^2 / 2 + 6 K + 16) u^2 A,

2^-40 of A for ten clients, if all errors have one sign; as a rule it is 2^-46, for a thousand clients too.
A number that a sum starts from, as in accumulate_ and masked_apply_ (there K = 1), counts in A.

Nothing vanishes or overflows unseen. The weights are multiplied by a power of two, so that the smallest lies
in [2^44, 2^45): then the error of a product is exact even of the smallest subnormal number, and w_low * d
loses at most 2^-45 of it. The sum is scaled back at the end, and `settle` tells whether this was exact. It is
not if anything was NaN or Inf, or overflowed on the way (the low part stays NaN then), nor if the result is
subnormal. Such a tile is computed anew in float64.
"""

from __future__ import annotations

import math

import numpy as np
import triton
import triton.language as tl
from numpy.typing import NDArray

from fedtlu_fast.kernels.pairs import fused, two_sum

SMALLEST = 44
"""The binary exponent of the smallest weight's magnitude, scaled."""
LARGEST = 104
"""Scaled weights must stay below two to this."""
FARTHEST = 120
"""Two to this, and to minus this, are normal numbers of float32."""


def scale_of(weights: NDArray[np.float64]) -> int | None:
    """Returns the exponent of the power of two that scales the weights; None if pairs cannot hold them."""
    sizes = np.abs(weights[weights != 0])
    if not len(sizes):
        return 0
    if not np.isfinite(sizes).all():
        return None
    smallest, largest = (math.frexp(size)[1] - 1 for size in (sizes.min(), sizes.max()))
    scale = SMALLEST - smallest
    return scale if abs(scale) <= FARTHEST and largest + scale < LARGEST else None


def split(weights: NDArray[np.float64], scale: int) -> NDArray[np.float32]:
    """[K, 2] float32: the high and the low part of each weight times ``2**scale``."""
    scaled = np.ldexp(weights, scale)
    high = scaled.astype(np.float32)
    return np.stack((high, (scaled - high).astype(np.float32)), axis=-1)


@triton.jit
def power_of_two(exponent):
    """Returns two to this power, float32; at most `FARTHEST` from 0."""
    return ((exponent + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def two_difference(a, b):
    """Returns d = a - b rounded, and the error: d + error is a - b exactly."""
    d = a - b
    t = d - a
    return d, (a - (d - t)) - (b + t)


@triton.jit
def add_product(total, low, change, change_low, weight, weight_low, HAS_LOW: tl.constexpr):
    """Returns (total, low) + (weight, weight_low) * (change, change_low); change_low counts with HAS_LOW."""
    p = weight * change
    e = fused(weight, change, p * -1.0)
    total, error = two_sum(total, p)
    error = fused(weight_low, change, error + e)
    if HAS_LOW:
        error = fused(weight, change_low, error)
    return total, low + error


@triton.jit
def settle(total, low, scale):
    """Returns the sum times ``2**-scale``, rounded, and whether the scaling was exact in all lanes."""
    scaled = total + low
    rounded = scaled * power_of_two(-scale)
    lost = fused(rounded, power_of_two(scale), scaled * -1.0)
    return rounded, tl.sum(tl.abs(lost), axis=0) == 0.0
