"""Computes the moments of every layer in two launches: one over all tiles, one over all layers.

Both have a fixed tree and no atomics, so the same input in the same place gives the same bits every time.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fedtlu_fast.kernels.device import warps_of
from fedtlu_fast.kernels.merge import merge
from fedtlu_fast.kernels.numbers import widen
from fedtlu_fast.kernels.pairs import ordinary, put_sums, tile_sums, use_pairs
from fedtlu_fast.kernels.tiles import Layers, tiles_of

# Chosen for Hopper by reasoning, not yet measured. A row gives each thread one 16-byte load;
# four rows keep four such loads per thread in flight, while the float64 sums stay one row wide to save
# registers. tiles.TILE_BYTES is a multiple of a step (ROWS * ROW_BYTES).
THREADS = 128
ROWS = 4
ROW_BYTES = THREADS * 16


@triton.jit
def _load(source, base, first, stop, ROWS: tl.constexpr, WIDTH: tl.constexpr, WHOLE: tl.constexpr):
    """Loads one step of a tile, widened, and a mask of the layer's lanes; other lanes hold 0."""
    lanes = base + tl.arange(0, ROWS)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]  # [ROWS, WIDTH]
    inside = (lanes >= first) & (lanes < stop)
    # A mask would split the 16-byte loads of a step that lies wholly in the layer.
    x = tl.load(source + lanes) if WHOLE else tl.load(source + lanes, mask=inside, other=0.0)
    return widen(x), inside


@triton.jit
def _shift(x, inside, centre, WHOLE: tl.constexpr):
    """``x - centre`` in float64; 0 in lanes outside the layer."""
    shifted = x.to(tl.float64) - centre
    if not WHOLE:
        shifted = tl.where(inside, shifted, 0.0)
    return shifted


@triton.jit
def _largest(x):
    """Returns the largest magnitude of every column: [ROWS, WIDTH] -> [WIDTH]."""
    return tl.max(tl.abs(x), axis=0)


@triton.jit
def _tile_moments(source, first, stop, ROWS: tl.constexpr, WIDTH: tl.constexpr, WHOLE: tl.constexpr):
    """Returns the mean as c + offset, m2 and largest magnitude of lanes ``first .. stop - 1``.

    The sums are taken about the mean c of the first step, which is itself taken about the first element p:
        c = p + sum(x - p) / n_0;  offset = sum(x - c) / n;  m2 = sum((x - c)^2) - n offset^2
    The first step is part of the tile, so offset^2 is at most a few times the variance: the subtraction in m2
    loses almost nothing, even if the first element is an outlier. In a constant tile every x - c is exactly
    0. The mean stays in two parts, because c alone may use all digits of a float64.
    """
    STEP: tl.constexpr = ROWS * WIDTH
    pivot = widen(tl.load(source + first)).to(tl.float64)
    x, inside = _load(source, 0, first, stop, ROWS, WIDTH, WHOLE)
    total = tl.sum(tl.sum(_shift(x, inside, pivot, WHOLE), axis=0), axis=0)
    centre = pivot + total / (tl.minimum(stop, STEP) - first).to(tl.float64)

    shifted = _shift(x, inside, centre, WHOLE)
    sums = tl.sum(shifted, axis=0)  # [WIDTH]
    squares = tl.sum(shifted * shifted, axis=0)  # [WIDTH]
    largest = _largest(x)  # [WIDTH]
    for base in range(STEP, stop, STEP):
        x, inside = _load(source, base, first, stop, ROWS, WIDTH, WHOLE)
        shifted = _shift(x, inside, centre, WHOLE)
        sums += tl.sum(shifted, axis=0)
        squares += tl.sum(shifted * shifted, axis=0)
        largest = tl.maximum(largest, _largest(x))

    total = tl.sum(sums, axis=0)
    offset = total / (stop - first).to(tl.float64)
    m2 = tl.maximum(tl.sum(squares, axis=0) - total * offset, 0.0)
    return centre, offset, m2, tl.max(largest, axis=0).to(tl.float64)


@triton.jit
def _nonfinite(source, first, stop, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Counts how many of lanes ``first .. stop - 1`` are NaN or Inf."""
    bad = tl.zeros((WIDTH,), dtype=tl.int32)
    for base in range(0, stop, ROWS * WIDTH):
        x, _ = _load(source, base, first, stop, ROWS, WIDTH, False)
        bad += tl.sum((x - x != 0.0).to(tl.int32), axis=0)
    return tl.sum(bad, axis=0)


@triton.jit
def _put_wide(source, first, stop, partials, tiles, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Stores a tile's centre, offset, m2, abs_max, nonfinite, computed in float64."""
    if (first == 0) & (stop % (ROWS * WIDTH) == 0):
        centre, offset, m2, abs_max = _tile_moments(source, first, stop, ROWS, WIDTH, True)
    else:
        centre, offset, m2, abs_max = _tile_moments(source, first, stop, ROWS, WIDTH, False)
    tl.store(partials, centre)
    tl.store(partials + tiles, offset)
    tl.store(partials + 2 * tiles, m2)
    tl.store(partials + 3 * tiles, abs_max)
    tl.store(partials + 4 * tiles, 0.0)
    mean = centre + offset
    if mean - mean != 0.0:  # a NaN or Inf among the elements makes the mean non-finite: only then count them
        bad = _nonfinite(source, first, stop, ROWS, WIDTH)
        tl.store(partials + 4 * tiles, bad.to(tl.float64))


@triton.jit(do_not_specialize=["tiles"])
def tile_moments_kernel(
    origin,
    starts,
    firsts,
    stops,
    partials,
    tiles,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    PAIRS: tl.constexpr,
):
    """Computes the moments of one tile: ``partials[:, tile] = centre, offset, m2, abs_max, nonfinite``.

    Args:
        origin: where `starts` count from; any dtype.
        starts, firsts, stops: [T], the tile table.
        partials: [5, T], float64, out; the mean is centre + offset. With PAIRS, an ordinary tile has sums
            there (`pairs.put_sums`).
        tiles: T.
        ROWS, WIDTH: shape of a step.
        PAIRS: whether to keep sums in pairs of float32, wherever these hold them.
    """
    tile = tl.program_id(0).to(tl.int64)
    source = tl.multiple_of(origin + tl.load(starts + tile), 16)  # the table starts tiles on 16 bytes
    first = tl.load(firsts + tile).to(tl.int32)
    stop = tl.load(stops + tile).to(tl.int32)
    partials += tile
    if PAIRS:
        if (first == 0) & (stop % (ROWS * WIDTH) == 0):
            total, total_low, squares, squares_low, largest = tile_sums(
                source, first, stop, ROWS, WIDTH, True
            )
        else:
            total, total_low, squares, squares_low, largest = tile_sums(
                source, first, stop, ROWS, WIDTH, False
            )
        if ordinary(total, squares, largest, stop - first):
            put_sums(total, total_low, squares, squares_low, largest, partials, tiles)
        else:
            _put_wide(source, first, stop, partials, tiles, ROWS, WIDTH)
    else:
        _put_wide(source, first, stop, partials, tiles, ROWS, WIDTH)


def layer_moments(origin: Tensor, layers: Layers, moments: Tensor) -> None:
    """Fills the layers' columns of `moments`.

    Args:
        origin: a tensor of the layers' dtype, on their device.
        layers: where they lie, counted from the first element of `origin`.
        moments: [5, >= L], float64, contiguous, on the same device; changed in place.
    """
    count = len(layers.lengths)
    if not count:
        return
    table = tiles_of(layers, origin)
    pairs = use_pairs(origin.dtype, origin.device)
    partials = torch.empty(5, table.count, dtype=torch.float64, device=origin.device)
    if table.count:
        tile_moments_kernel[(table.count,)](
            origin,
            table.starts,
            table.firsts,
            table.stops,
            partials,
            table.count,
            ROWS=ROWS,
            WIDTH=ROW_BYTES // origin.element_size(),
            PAIRS=pairs,
            num_warps=warps_of(THREADS, origin.device),
            enable_fp_fusion=not pairs,  # a fused x * x + sum would spoil the error of x * x
        )
    merge(partials, table, count, moments, pairs)
