"""Sums of float32, and of their squares, kept as pairs of float32: the loop over the elements has no float64.

Most GPUs compute float64 at 1/16 to 1/64 of the speed of float32. There a tile's sums are kept in pairs, and
only `merge` computes in float64, a few times a tile. Error-free transformations carry the digits (two-sum:
Knuth, The Art of Computer Programming 2, 4.2.2; the error of a product by one fused multiply-add, and sums
of this kind: Ogita, Rump and Oishi, Accurate Sum and Dot Product, SIAM J. Sci. Comput. 26, 2005).

The error. Let u = 2^-24, and let N be the longest chain of additions of a lane: 32 elements and a tree of 11.
The high parts lose nothing: what an addition rounds away, at most u times the sum so far, is added to the low
part, together with what the square rounded away. So the low part adds up at most 2 N numbers, whose sizes add
up to at most N u sum|x|, and rounds each time: it is off by at most 2 N u times that,
    2 N^2 u^2 sum|x| = 1.3e-11 sum|x|, and as much of sum(x^2),
which takes errors that all have one sign; as a rule it is a thousandth of that. No pivot is subtracted, so
m2 = sum(x^2) - sum(x)^2 / n loses digits by cancellation: `ordinary` takes a tile only if |mean| <= 8 std,
where this multiplies the error by at most 1 + 8^2. Then m2 is right to 9e-10 of itself and mean/std to 4e-9.
All other tiles are left to float64: NaN and Inf, numbers so large that squares overflow or so small that they
vanish, constant tiles, and tiles far from zero.
"""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl

from fedtlu_fast.errors import not_one_of
from fedtlu_fast.kernels.device import fast_float64
from fedtlu_fast.kernels.numbers import double, widen

VARIABLE = "FEDTLU_GPU_SUMS"
CHOICES = ("auto", "float64", "pairs")
# The row of a tile's count of non-finite elements holds this where the other rows hold pairs.
PAIRS_HERE = tl.constexpr(-1.0)


@triton.jit
def _probe():
    pass


_COMPILED = tl.constexpr(isinstance(_probe, triton.JITFunction))


@triton.jit
def fused(a, b, c):
    """Returns a * b + c, float32, rounded once."""
    if _COMPILED:
        result = tl.fma(a, b, c)
    else:
        # The interpreter's multiply-add rounds twice. Here the product is exact in float64 and the sum is
        # rounded to odd, so that rounding it again gives what one rounding would (Boldo and Melquiond,
        # Emulation of a FMA and correctly rounded sums, IEEE Transactions on Computers 57, 2008).
        product, addend = a.to(tl.float64) * b.to(tl.float64), c.to(tl.float64)
        total, error = two_sum(product, addend)
        bits = total.to(tl.int64, bitcast=True)
        nearer = tl.where((error > 0.0) == (total > 0.0), bits + 1, bits - 1)
        bits = tl.where(((error > 0.0) | (error < 0.0)) & ((bits & 1) == 0), nearer, bits)
        result = bits.to(tl.float64, bitcast=True).to(tl.float32)
    return result


@triton.jit
def two_sum(a, b):
    """Returns s = a + b rounded, and the error: s + error is a + b exactly."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@triton.jit
def square(x, EXACT: tl.constexpr):
    """Returns x * x rounded, and the error; EXACT: x has at most 12 digits, so there is none."""
    p = x * x
    # p * -1 becomes a sign; -p would be the subtraction 0 - p.
    return p, tl.zeros_like(p) if EXACT else fused(x, x, p * -1.0)


@triton.jit
def join(
    total, total_low, squares, squares_low, largest, total2, total2_low, squares2, squares2_low, largest2
):
    """Adds the sums of two lanes."""
    total, error = two_sum(total, total2)
    squares, error_of_squares = two_sum(squares, squares2)
    return (
        total,
        (total_low + total2_low) + error,
        squares,
        (squares_low + squares2_low) + error_of_squares,
        tl.maximum(largest, largest2),
    )


@triton.jit
def tile_sums(source, first, stop, ROWS: tl.constexpr, WIDTH: tl.constexpr, WHOLE: tl.constexpr):
    """Returns sum(x), its low part, sum(x^2), its low part, and max|x| of lanes ``first .. stop - 1``.

    Lanes outside the layer hold 0, which changes no sum.
    """
    EXACT: tl.constexpr = source.dtype.element_ty.primitive_bitwidth == 16
    total = tl.zeros((WIDTH,), tl.float32)
    total_low = tl.zeros((WIDTH,), tl.float32)
    squares = tl.zeros((WIDTH,), tl.float32)
    squares_low = tl.zeros((WIDTH,), tl.float32)
    largest = tl.zeros((WIDTH,), tl.float32)
    for base in range(0, stop, ROWS * WIDTH):
        for row in tl.static_range(ROWS):
            lanes = base + row * WIDTH + tl.arange(0, WIDTH)  # [WIDTH]
            if WHOLE:  # a mask would split the 16-byte loads
                x = widen(tl.load(source + lanes))
            else:
                x = widen(tl.load(source + lanes, (lanes >= first) & (lanes < stop), other=0.0))
            total, error = two_sum(total, x)
            total_low += error
            p, error_of_square = square(x, EXACT)
            squares, error = two_sum(squares, p)
            if EXACT:
                squares_low += error
            else:
                squares_low += error + error_of_square
            largest = tl.maximum(largest, tl.abs(x))
    return tl.reduce((total, total_low, squares, squares_low, largest), 0, join)


@triton.jit
def ordinary(total, squares, largest, n):
    """Tells whether pairs hold the moments of n elements, at most 2^15, with these sums (see above).

    Up to 2^48, no square or sum overflows. From a root mean square of 2^-49 on, all that vanishes below
    2^-149 is less than 2^-51 of the squares.
    """
    each = 1.0 / n.to(tl.float32)
    mean = total * each
    square = squares * each
    return ((largest <= 281474976710656.0) & (square >= 3.2e-30) & (mean * mean * 65.0 <= square * 64.0)) | (
        largest == 0.0
    ) & (total == 0.0)


@triton.jit
def put_sums(total, total_low, squares, squares_low, largest, partials, tiles):
    """Stores a tile's sums, as words of two float32; `means_of_tiles` takes them apart."""
    largest_bits = largest.to(tl.int32, bitcast=True)
    tl.store(partials, double(total.to(tl.int32, bitcast=True), total_low.to(tl.int32, bitcast=True)))
    squares_bits = squares.to(tl.int32, bitcast=True)
    tl.store(partials + 2 * tiles, double(squares_bits, squares_low.to(tl.int32, bitcast=True)))
    tl.store(partials + 3 * tiles, double(largest_bits, largest_bits))
    tl.store(partials + 4 * tiles, PAIRS_HERE)


@triton.jit
def _high(word):
    bits = word.to(tl.int64, bitcast=True) >> 32
    return bits.to(tl.int32).to(tl.float32, bitcast=True).to(tl.float64)


@triton.jit
def _low(word):
    return word.to(tl.int64, bitcast=True).to(tl.int32).to(tl.float32, bitcast=True).to(tl.float64)


@triton.jit
def moments_of_pairs(total, squares, largest, n):
    """Returns mean, m2 and abs_max of n > 0 elements, in float64, from the words of `put_sums`."""
    whole = _high(total) + _low(total)
    mean = whole / n
    return mean, tl.maximum(_high(squares) + _low(squares) - whole * mean, 0.0), _high(largest)


def use_pairs(dtype: torch.dtype, device: torch.device) -> bool:
    """Tells whether sums of this dtype on this device are kept in pairs.

    They are on GPUs that compute float64 slowly; the environment's FEDTLU_GPU_SUMS (``float64`` or
    ``pairs``) decides otherwise, for tests and comparisons. Sums of float64 never are.

    Raises:
        InputError: FEDTLU_GPU_SUMS is something else.
    """
    asked = os.environ.get(VARIABLE, "auto")
    if asked not in CHOICES:
        raise not_one_of(VARIABLE, asked, CHOICES)
    if dtype == torch.float64:
        return False
    if asked == "auto":
        return device.type == "cuda" and not fast_float64(device)
    return asked == "pairs"
