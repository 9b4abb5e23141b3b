"""Computes the moments of every layer in two launches: one over all tiles, one over all layers.

Both have a fixed tree and no atomics, so the same input in the same place gives the same bits every time.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fedtlu_fast.kernels.numbers import widen
from fedtlu_fast.kernels.tiles import Layers, Tiles, tiles_of

# Chosen for Hopper by reasoning, not yet measured. A row gives each thread of four warps one 16-byte load;
# four rows keep four such loads per thread in flight, while the float64 sums stay one row wide to save
# registers. tiles.TILE_BYTES is a multiple of a step (ROWS * ROW_BYTES).
NUM_WARPS = 4
ROWS = 4
ROW_BYTES = 32 * NUM_WARPS * 16
# Tiles per step of the second launch, and its warps; the first pair that holds the largest layer is chosen,
# else the last. 100,000 small layers need small programs. An embedding of 38M float32, which is also one
# program, has 2,356 tiles here and 37,000 in aggregate.py. Four tiles per thread take 128 registers.
MERGE_LANES = (32, 512, 2048)
MERGE_WARPS = (1, 4, 16)


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


@triton.jit(do_not_specialize=["tiles"])
def tile_moments_kernel(
    origin, starts, firsts, stops, partials, tiles, ROWS: tl.constexpr, WIDTH: tl.constexpr
):
    """Computes the moments of one tile: ``partials[:, tile] = centre, offset, m2, abs_max, nonfinite``.

    Args:
        origin: where `starts` count from; any dtype.
        starts, firsts, stops: [T], the tile table.
        partials: [5, T], float64, out; the mean is centre + offset.
        tiles: T.
        ROWS, WIDTH: shape of a step.
    """
    tile = tl.program_id(0).to(tl.int64)
    source = tl.multiple_of(origin + tl.load(starts + tile), 16)  # the table starts tiles on 16 bytes
    first = tl.load(firsts + tile).to(tl.int32)
    stop = tl.load(stops + tile).to(tl.int32)
    if (first == 0) & (stop % (ROWS * WIDTH) == 0):
        centre, offset, m2, abs_max = _tile_moments(source, first, stop, ROWS, WIDTH, True)
    else:
        centre, offset, m2, abs_max = _tile_moments(source, first, stop, ROWS, WIDTH, False)
    tl.store(partials + tile, centre)
    tl.store(partials + tiles + tile, offset)
    tl.store(partials + 2 * tiles + tile, m2)
    tl.store(partials + 3 * tiles + tile, abs_max)
    tl.store(partials + 4 * tiles + tile, 0.0)
    mean = centre + offset
    if mean - mean != 0.0:  # a NaN or Inf among the elements makes the mean non-finite: only then count them
        bad = _nonfinite(source, first, stop, ROWS, WIDTH)
        tl.store(partials + 4 * tiles + tile, bad.to(tl.float64))


@triton.jit
def _shift_of_tiles(partials, tile, inside, centre, tiles):
    """Returns the means of these tiles minus `centre`, [LANES]; exactly 0 for equal centres."""
    centres = tl.load(partials + tile, inside, other=0.0)
    return tl.where(inside, centres - centre + tl.load(partials + tiles + tile, inside, other=0.0), 0.0)


@triton.jit
def _count_of_tiles(firsts, stops, tile, inside):
    """Returns the number of elements of these tiles, [LANES]."""
    return (tl.load(stops + tile, inside, other=0) - tl.load(firsts + tile, inside, other=0)).to(tl.float64)


@triton.jit(do_not_specialize=["tiles", "layers", "width"])
def merge_kernel(
    partials, firsts, stops, bounds, columns, moments, tiles, layers, width, LANES: tl.constexpr
):
    """Merges the moments of a layer's tiles of one vector; program ``vector * layers + layer``.

        n = sum(n_i);  s_i = c_i - c_0 + offset_i;  s = sum(n_i s_i) / n
        mean = c_0 + s;  m2 = sum(m2_i + n_i (s_i - s)^2)

    Tiles of equal mean add exactly nothing to m2. A layer without tiles is empty: zeros.

    Args:
        partials: [V, 5, T], the result of `tile_moments_kernel` for each of V vectors.
        firsts, stops: [T], the tile table, of every vector.
        bounds: [>= L + 1], the layer's tiles.
        columns: [>= L], the layer's column in `moments`, counted from ``vector * L``.
        moments: [5, width], float64, out: count, mean, m2, abs_max, nonfinite.
        tiles, layers: T and L.
        width: columns of `moments`, at least V * L.
        LANES: tiles per step.
    """
    vector = tl.program_id(0) // layers
    layer = tl.program_id(0) % layers
    partials += vector.to(tl.int64) * 5 * tiles
    begin = tl.load(bounds + layer)
    end = tl.load(bounds + layer + 1)
    centre = tl.load(partials + begin, mask=begin < end, other=0.0)

    counts = tl.zeros((LANES,), dtype=tl.float64)
    sums = tl.zeros((LANES,), dtype=tl.float64)
    largest = tl.zeros((LANES,), dtype=tl.float64)
    bad = tl.zeros((LANES,), dtype=tl.float64)
    for base in range(begin, end, LANES):
        tile = base + tl.arange(0, LANES)
        inside = tile < end
        n = _count_of_tiles(firsts, stops, tile, inside)
        counts += n
        sums += n * _shift_of_tiles(partials, tile, inside, centre, tiles)
        largest = tl.maximum(largest, tl.load(partials + 3 * tiles + tile, inside, other=0.0))
        bad += tl.load(partials + 4 * tiles + tile, inside, other=0.0)
    count = tl.sum(counts, axis=0)
    shift = tl.sum(sums, axis=0) / tl.maximum(count, 1.0)

    squares = tl.zeros((LANES,), dtype=tl.float64)
    for base in range(begin, end, LANES):
        tile = base + tl.arange(0, LANES)
        inside = tile < end
        n = _count_of_tiles(firsts, stops, tile, inside)  # 0 outside, and so is the product
        deviation = _shift_of_tiles(partials, tile, inside, centre, tiles) - shift
        squares += tl.load(partials + 2 * tiles + tile, inside, other=0.0) + n * deviation * deviation

    nonfinite = tl.sum(bad, axis=0)
    clean = nonfinite == 0.0
    nan = float("nan")
    column = vector * layers + tl.load(columns + layer)  # int64, as the table
    tl.store(moments + column, count)
    tl.store(moments + width + column, tl.where(clean, centre + shift, nan))
    tl.store(moments + 2 * width + column, tl.where(clean, tl.sum(squares, axis=0), nan))
    tl.store(moments + 3 * width + column, tl.where(clean, tl.max(largest, axis=0), nan))
    tl.store(moments + 4 * width + column, nonfinite)


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
            num_warps=NUM_WARPS,
            enable_fp_fusion=True,
        )
    merge(partials, table, count, moments)


def merge(partials: Tensor, table: Tiles, layers: int, moments: Tensor) -> None:
    """Launches `merge_kernel` for the first layers of the table.

    Args:
        partials: [V, 5, T] or, for one vector, [5, T].
        table: T tiles.
        layers: how many layers of the table to merge; the rest of the table is not read.
        moments: [5, >= V * layers], float64, contiguous; changed in place.
    """
    vectors = 1 if partials.dim() == 2 else len(partials)
    if not layers:
        return
    choice = sum(table.most > lanes for lanes in MERGE_LANES[:-1])
    merge_kernel[(vectors * layers,)](
        partials,
        table.firsts,
        table.stops,
        table.bounds,
        table.columns,
        moments,
        table.count,
        layers,
        moments.shape[1],
        LANES=MERGE_LANES[choice],
        num_warps=MERGE_WARPS[choice],
        enable_fp_fusion=True,
    )
