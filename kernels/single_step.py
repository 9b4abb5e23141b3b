"""Holds code of kernels whose tiles are a single step, so that moments are computed in registers."""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl
from torch import Tensor

from fedtlu_fast.kernels.anchored import ordinary_in_float64, pair_sums, wide_sums
from fedtlu_fast.kernels.pairs import ordinary, put_sums
from fedtlu_fast.kernels.tiles import Layers, Tiles, tiles_of


@triton.jit
def lane_zero(vector, start, ALIGNED: tl.constexpr):
    """Returns the address at which a tile begins."""
    source = vector + start
    if ALIGNED:  # the table starts tiles on 16 bytes
        source = tl.multiple_of(source, 16)
    return source


@triton.jit
def read(source, first, stop, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    """Loads lanes ``first .. stop - 1`` of a tile [BLOCK], and 0 in the others.

    WHOLE: first is 0, and stop is BLOCK or 0. All lanes then share the mask: it does not split the 16-byte
    loads.
    """
    lanes = tl.arange(0, BLOCK)
    inside = tl.broadcast_to(stop, (BLOCK,)) > 0 if WHOLE else (lanes >= first) & (lanes < stop)
    return tl.load(source + lanes, inside, other=0.0)


@triton.jit
def write(target, x, first, stop, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    """Stores lanes ``first .. stop - 1`` of a tile [BLOCK]."""
    lanes = tl.arange(0, BLOCK)
    if WHOLE:
        tl.store(target + lanes, x)
    else:
        tl.store(target + lanes, x, (lanes >= first) & (lanes < stop))


@triton.jit
def _put_wide(x, first, stop, partials, tiles, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    """Stores the moments of a tile [BLOCK], computed in float64.

    The sums are taken about c, the mean but for rounding:
        c = p + sum(x - p) / n;  offset = sum(x - c) / n;  m2 = sum((x - c)^2) - n offset^2
    In a constant tile every x - c is exactly 0: for float64, p is the first element; for float32, p is 0,
    because a tile's sum of equal numbers is exact in float64.
    """
    n = (stop - first).to(tl.float64)
    if WHOLE:
        n = tl.full((), BLOCK, tl.float64)  # a power of two: the division by n is exact
    lanes = tl.arange(0, BLOCK)
    inside = (lanes >= first) & (lanes < stop)
    wide = x.to(tl.float64)
    pivot = tl.full((), 0.0, tl.float64)
    shifted = wide
    if x.dtype == tl.float64:
        pivot = tl.sum(tl.where(lanes == first, wide, 0.0), axis=0)
        shifted = tl.where(inside, wide - pivot, 0.0)
    centre = pivot + tl.sum(shifted, axis=0) / n
    shifted = wide - centre
    if not WHOLE:
        shifted = tl.where(inside, shifted, 0.0)
    total = tl.sum(shifted, axis=0)
    offset = total / n
    m2 = tl.maximum(tl.sum(shifted * shifted, axis=0) - total * offset, 0.0)
    abs_max = tl.max(tl.abs(x), axis=0).to(tl.float64)
    tl.store(partials, centre)
    tl.store(partials + tiles, offset)
    tl.store(partials + 2 * tiles, m2)
    tl.store(partials + 3 * tiles, abs_max)
    bad = 0
    mean = centre + offset
    if mean - mean != 0.0:  # a NaN or Inf among the elements makes the mean non-finite: only then count them
        bad = tl.sum((x - x != 0.0).to(tl.int32), axis=0)
    tl.store(partials + 4 * tiles, bad.to(tl.float64))


@triton.jit
def _put_wide_sums(
    x, first, stop, partials, tiles, VECTOR: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr
):
    """Stores the moments of a float32 tile from sums in float64, if these hold them, else about its mean."""
    total, squares, largest = wide_sums(x, VECTOR)
    n = BLOCK if WHOLE else (stop - first).to(tl.float64)
    if ordinary_in_float64(total, squares, largest, n):
        # A power of two's reciprocal is exact.
        mean = total * (1.0 / BLOCK) if WHOLE else total / n
        tl.store(partials, mean)
        tl.store(partials + tiles, 0.0)
        tl.store(partials + 2 * tiles, tl.maximum(squares - total * mean, 0.0))
        tl.store(partials + 3 * tiles, largest.to(tl.float64))
        tl.store(partials + 4 * tiles, 0.0)
    else:
        _put_wide(x, first, stop, partials, tiles, BLOCK, WHOLE)


@triton.jit
def put_moments(
    x,
    first,
    stop,
    partials,
    tiles,
    VECTOR: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Stores the moments of a tile [BLOCK] of float32 or float64, as `layer_stats.tile_moments_kernel` does.

    Lanes outside the layer hold 0. VECTOR: the neighbours that a thread loads together.
    """
    if PAIRS:
        total, total_low, squares, squares_low, largest = pair_sums(x, VECTOR)
        if ordinary(total, squares, largest, stop - first):
            put_sums(total, total_low, squares, squares_low, largest, partials, tiles)
        else:
            _put_wide(x, first, stop, partials, tiles, BLOCK, WHOLE)
    elif x.dtype == tl.float32:
        _put_wide_sums(x, first, stop, partials, tiles, VECTOR, BLOCK, WHOLE)
    else:
        _put_wide(x, first, stop, partials, tiles, BLOCK, WHOLE)


def tiles_of_all(layers: Layers, origin: Tensor, size: int, block: int) -> Tiles:
    """Returns the layers' tiles of `block` elements, then the tiles before and behind all layers.

    Seen from the narrowest vector: an index on a 16-byte boundary there can be on one in the wider vectors,
    too.
    """
    begin, end = 0, 0
    if len(layers.lengths):
        begin, end = int(layers.starts[0]), int(layers.starts[-1] + layers.lengths[-1])
    starts = np.concatenate((layers.starts, [0, end]))
    lengths = np.concatenate((layers.lengths, [begin, size - end]))
    return tiles_of(Layers(starts, lengths), origin, block * origin.element_size())
