"""Merges the moments of tiles to the moments of layers, in one launch over the layers.

Its tree is fixed, and it has no atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fedtlu_fast.kernels.pairs import PAIRS_HERE, moments_of_pairs
from fedtlu_fast.kernels.tiles import Tiles

# Tiles per step, and warps; the first choice that holds the largest layer is taken, else the last. 100,000
# small layers need small programs. An embedding of 38M float32, which is also one program, has 2,356 tiles in
# layer_stats.py and 37,000 in aggregate.py. Four tiles per thread take 128 registers; of pairs, two.
MERGE_LANES = {False: (32, 512, 2048), True: (32, 512, 1024)}  # by whether tiles may hold pairs
MERGE_WARPS = (1, 4, 16)


@triton.jit
def _moments_of_tiles(partials, tile, n, inside, tiles, PAIRS: tl.constexpr):
    """Returns centre, offset, m2 and abs_max of these tiles, [LANES] each; the mean is centre + offset."""
    centre = tl.load(partials + tile, inside, other=0.0)
    offset = tl.load(partials + tiles + tile, inside, other=0.0)
    m2 = tl.load(partials + 2 * tiles + tile, inside, other=0.0)
    abs_max = tl.load(partials + 3 * tiles + tile, inside, other=0.0)
    if PAIRS:
        here = tl.load(partials + 4 * tiles + tile, inside, other=0.0) == PAIRS_HERE
        mean_here, m2_here, abs_max_here = moments_of_pairs(centre, m2, abs_max, tl.maximum(n, 1.0))
        centre = tl.where(here, mean_here, centre)
        offset = tl.where(here, 0.0, offset)
        m2 = tl.where(here, m2_here, m2)
        abs_max = tl.where(here, abs_max_here, abs_max)
    return centre, offset, m2, abs_max


@triton.jit
def _count_of_tiles(firsts, stops, tile, inside):
    """Returns the number of elements of these tiles, [LANES]."""
    return (tl.load(stops + tile, inside, other=0) - tl.load(firsts + tile, inside, other=0)).to(tl.float64)


@triton.jit(do_not_specialize=["tiles", "layers", "width"])
def merge_kernel(
    partials,
    firsts,
    stops,
    bounds,
    columns,
    moments,
    tiles,
    layers,
    width,
    LANES: tl.constexpr,
    PAIRS: tl.constexpr,
):
    """Merges the moments of a layer's tiles of one vector; program ``vector * layers + layer``.

        n = sum(n_i);  s_i = c_i - c_0 + offset_i;  s = sum(n_i s_i) / n
        mean = c_0 + s;  m2 = sum(m2_i + n_i (s_i - s)^2)

    Tiles of equal mean add exactly nothing to m2. A layer without tiles is empty: zeros.

    Args:
        partials: [V, 5, T], the moments of the tiles of each of V vectors (see `tile_moments_kernel`).
        firsts, stops: [T], the tile table, of every vector.
        bounds: [>= L + 1], the layer's tiles.
        columns: [>= L], the layer's column in `moments`, counted from ``vector * L``.
        moments: [5, width], float64, out: count, mean, m2, abs_max, nonfinite.
        tiles, layers: T and L.
        width: columns of `moments`, at least V * L.
        LANES: tiles per step.
        PAIRS: whether some of the tiles may hold pairs.
    """
    vector = tl.program_id(0) // layers
    layer = tl.program_id(0) % layers
    partials += vector.to(tl.int64) * 5 * tiles
    begin = tl.load(bounds + layer)
    end = tl.load(bounds + layer + 1)
    leading = _count_of_tiles(firsts, stops, begin, begin < end)
    centre = _moments_of_tiles(partials, begin, leading, begin < end, tiles, PAIRS)[0]

    counts = tl.zeros((LANES,), dtype=tl.float64)
    sums = tl.zeros((LANES,), dtype=tl.float64)
    largest = tl.zeros((LANES,), dtype=tl.float64)
    bad = tl.zeros((LANES,), dtype=tl.float64)
    for base in range(begin, end, LANES):
        tile = base + tl.arange(0, LANES)
        inside = tile < end
        n = _count_of_tiles(firsts, stops, tile, inside)
        counts += n
        centres, offsets, _, abs_max = _moments_of_tiles(partials, tile, n, inside, tiles, PAIRS)
        sums += n * tl.where(inside, centres - centre + offsets, 0.0)  # exactly 0 for equal centres
        largest = tl.maximum(largest, abs_max)
        found = tl.load(partials + 4 * tiles + tile, inside, other=0.0)
        bad += tl.maximum(found, 0.0) if PAIRS else found
    count = tl.sum(counts, axis=0)
    shift = tl.sum(sums, axis=0) / tl.maximum(count, 1.0)

    squares = tl.zeros((LANES,), dtype=tl.float64)
    for base in range(begin, end, LANES):
        tile = base + tl.arange(0, LANES)
        inside = tile < end
        n = _count_of_tiles(firsts, stops, tile, inside)  # 0 outside, and so is the product
        centres, offsets, m2, _ = _moments_of_tiles(partials, tile, n, inside, tiles, PAIRS)
        deviation = tl.where(inside, centres - centre + offsets, 0.0) - shift
        squares += m2 + n * deviation * deviation

    nonfinite = tl.sum(bad, axis=0)
    clean = nonfinite == 0.0
    nan = float("nan")
    column = vector * layers + tl.load(columns + layer)  # int64, as the table
    tl.store(moments + column, count)
    tl.store(moments + width + column, tl.where(clean, centre + shift, nan))
    tl.store(moments + 2 * width + column, tl.where(clean, tl.sum(squares, axis=0), nan))
    tl.store(moments + 3 * width + column, tl.where(clean, tl.max(largest, axis=0), nan))
    tl.store(moments + 4 * width + column, nonfinite)


def merge(partials: Tensor, table: Tiles, layers: int, moments: Tensor, pairs: bool) -> None:
    """Launches `merge_kernel` for the first layers of the table.

    Args:
        partials: [V, 5, T] or, for one vector, [5, T].
        table: T tiles.
        layers: how many layers of the table to merge; the rest of the table is not read.
        moments: [5, >= V * layers], float64, contiguous; changed in place.
        pairs: whether some of the tiles may hold pairs.
    """
    vectors = 1 if partials.dim() == 2 else len(partials)
    if not layers:
        return
    sizes = MERGE_LANES[pairs]
    choice = sum(table.most > lanes for lanes in sizes[:-1])
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
        LANES=sizes[choice],
        PAIRS=pairs,
        num_warps=MERGE_WARPS[choice],
        enable_fp_fusion=True,
    )
