"""Sums of a tile that lies in registers, and of its squares: a thread adds up its own elements first.

In pairs of float32, a thread's sums start from an anchor: more than the sum of its elements' magnitudes can
change. Then each addition needs no comparison of the two numbers to tell what it rounded away (fast two-sum:
Dekker, A Floating-Point Technique for Extending the Available Precision, Numerische Mathematik 18, 1971), and
a square needs no product of its own: 8 operations an element, where `pairs.tile_sums` has 15 or 17.

The error. Let u = 2^-24 and M the largest magnitude of the 16 elements of a thread. Its sum starts from 32 M
and stays below 48 M; that of its squares starts from 2 M^2 and stays below 18 M^2, but for roundings. Each
addition rounds away at most u times that, and the low part, which gathers this, rounds away u times what it
holds: it is off by at most 16^2 / 2 * 48 u^2 M or 16^2 / 2 * 18 u^2 M^2. The mean of M^2 over the threads is
at most 16 times the mean square of all elements, and the mean of M at most 4 times their root mean square.
So, of elements whose mean square is 1, the mean is off by at most 1536 u^2 and the mean square by 2304 u^2.
Seven joins of threads add no more than that again: 1.1e-11 and 1.7e-11 in all. With |mean| <= 8 std
(`pairs.ordinary`) m2 is right to 1.1e-9 of itself, and mean/std to 5e-9, if all errors have one sign.

In float64 no square of a float32 is rounded, and the sums are off by 2^-49 of the magnitudes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fedtlu_fast.kernels.pairs import fused, join

THREADS = tl.constexpr(128)
"""Of a program (`device.warps_of`)."""


@triton.jit
def _rows(x):
    half: tl.constexpr = x.shape[0] // 2
    return tl.split(tl.trans(tl.reshape(x, (2, half))))


@triton.jit
def _neighbours(x):
    half: tl.constexpr = x.shape[0] // 2
    return tl.split(tl.reshape(x, (half, 2)))


@triton.jit
def _pieces(x, VECTOR: tl.constexpr):
    """Returns the elements of each thread, one after another: tensors [THREADS], without moving any.

    VECTOR: the neighbours that a thread loads together.
    """
    size: tl.constexpr = x.shape[0]
    if size <= THREADS:
        parts = (x,)
    else:
        first, second = _rows(x) if size > THREADS * VECTOR else _neighbours(x)
        parts = _pieces(first, VECTOR) + _pieces(second, VECTOR)
    return parts


@triton.jit
def _largest(parts):
    """Returns the largest magnitude of each thread."""
    largest = tl.abs(parts[0])
    for i in tl.static_range(1, len(parts)):
        largest = tl.maximum(largest, tl.abs(parts[i]))
    return largest


@triton.jit
def pair_sums(x, VECTOR: tl.constexpr):
    """Returns what `pairs.tile_sums` does of a float32 tile in registers; lanes outside must hold 0."""
    parts = _pieces(x, VECTOR)
    count: tl.constexpr = len(parts)
    largest = _largest(parts)
    anchor = largest * (2.0 * count)
    total = anchor
    low = tl.zeros_like(anchor)
    bound = largest * largest * 2.0
    squares = bound
    squares_low = tl.zeros_like(anchor)
    for i in tl.static_range(count):
        x = parts[i]
        before = total
        total += x
        low += x - (total - before)
        before = squares
        squares = fused(x, x, squares)
        squares_low += fused(x, x, before - squares)
    # The anchors are taken away again: exactly from the sum, with its error from that of the squares.
    above = squares
    squares = above - bound
    squares_low -= bound + (squares - above)
    return tl.reduce((total - anchor, low, squares, squares_low, largest), 0, join)


@triton.jit
def _join_wide(total, squares, largest, total2, squares2, largest2):
    return total + total2, squares + squares2, tl.maximum(largest, largest2)


@triton.jit
def wide_sums(x, VECTOR: tl.constexpr):
    """Returns sum(x), sum(x^2) and max|x| of a float32 tile in registers, in float64."""
    parts = _pieces(x, VECTOR)
    total = parts[0].to(tl.float64)
    squares = total * total
    for i in tl.static_range(1, len(parts)):
        wide = parts[i].to(tl.float64)
        total += wide
        squares = tl.fma(wide, wide, squares)  # the product is exact: the bits of an addition
    return tl.reduce((total, squares, _largest(parts)), 0, _join_wide)


@triton.jit
def ordinary_in_float64(total, squares, largest, n):
    """Tells whether m2 may be taken from these sums of n finite elements: |mean| <= 8 std, or all are 0."""
    return (total * total <= squares * (n * (64.0 / 65.0))) & (largest - largest == 0.0)
