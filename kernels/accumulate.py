"""Computes ``aggregate += weight * (client - base)`` in one launch, or in two with the layers' moments."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fedtlu_fast.kernels.anchored import THREADS
from fedtlu_fast.kernels.device import warps_of
from fedtlu_fast.kernels.merge import merge
from fedtlu_fast.kernels.single_step import lane_zero, put_moments, tiles_of_all
from fedtlu_fast.kernels.tiles import Layers, in_step
from fedtlu_fast.kernels.weighted import add_weighted, words_of

# Chosen for Hopper by reasoning, not yet measured: two (float32) or four (float64) 16-byte loads per thread
# from each of three arrays.
BLOCK = 1024
# With moments: 16 elements per thread take about 93 registers.
MOMENTS_BLOCK = 2048


@triton.jit(do_not_specialize=["weight_high", "weight_low", "pair_high", "pair_low", "scale"])
def accumulate_kernel(
    aggregate,
    client,
    base,
    size,
    weight_high,
    weight_low,
    pair_high,
    pair_low,
    scale,
    HAS_BASE: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``aggregate = round(aggregate + weight * (client - base))``, rounded once.

    Every step is in float64, or with PAIRS in pairs of float32 (`pair_sums.py`).

    Args:
        aggregate: [P], float32 or float64.
        client, base: [P], that or 16 bits wide; `base` is not read without HAS_BASE.
        size: P.
        weight_high, weight_low, pair_high, pair_low, scale: see `weighted.words_of`.
        HAS_BASE: whether there is a base.
        PAIRS: whether sums are kept in pairs of float32; not for float64.
        BLOCK: elements per program.
    """
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    aggregate += begin
    client += begin
    base += begin
    words = (weight_high, weight_low, pair_high, pair_low)
    left = tl.minimum(size - begin, BLOCK).to(tl.int32)
    if left == BLOCK:
        add_weighted(aggregate, client, base, 0, left, words, scale, HAS_BASE, PAIRS, BLOCK, True)
    else:
        add_weighted(aggregate, client, base, 0, left, words, scale, HAS_BASE, PAIRS, BLOCK, False)


@triton.jit(do_not_specialize=["weight_high", "weight_low", "pair_high", "pair_low", "scale", "tiles"])
def accumulate_moments_kernel(
    aggregate,
    client,
    base,
    weight_high,
    weight_low,
    pair_high,
    pair_low,
    scale,
    starts,
    firsts,
    stops,
    partials,
    tiles,
    HAS_BASE: tl.constexpr,
    ALIGNED: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`accumulate_kernel` over one tile, and the moments of the numbers it stores.

    Args:
        aggregate: [P], float32 or float64.
        client, base: [P], that or 16 bits wide; `base` is not read without HAS_BASE.
        weight_high, weight_low, pair_high, pair_low, scale: see `accumulate_kernel`.
        starts, firsts, stops: [T], the tile table, seen from `client`.
        partials: [5, T], float64, out (see `layer_stats.tile_moments_kernel`).
        tiles: T.
        ALIGNED: whether all vectors lie on 16 bytes at the same indices.
        PAIRS: whether all sums are kept in pairs of float32; not for float64.
        HAS_BASE, BLOCK: whether there is a base; elements per tile.
    """
    tile = tl.program_id(0).to(tl.int64)
    start = tl.load(starts + tile)
    first = tl.load(firsts + tile).to(tl.int32)
    stop = tl.load(stops + tile).to(tl.int32)
    aggregate = lane_zero(aggregate, start, ALIGNED)
    client = lane_zero(client, start, ALIGNED)
    base = lane_zero(base, start, ALIGNED)
    words = (weight_high, weight_low, pair_high, pair_low)
    partials += tile
    VECTOR: tl.constexpr = 128 // base.dtype.element_ty.primitive_bitwidth
    # fmt: off
    if (first == 0) & (stop == BLOCK):
        new = add_weighted(aggregate, client, base, first, stop, words, scale, HAS_BASE, PAIRS, BLOCK, True)
        put_moments(new, first, stop, partials, tiles, VECTOR, PAIRS, BLOCK, True)
    else:
        new = add_weighted(aggregate, client, base, first, stop, words, scale, HAS_BASE, PAIRS, BLOCK, False)
        put_moments(new, first, stop, partials, tiles, VECTOR, PAIRS, BLOCK, False)
    # fmt: on


def accumulate(aggregate: Tensor, client: Tensor, base: Tensor | None, weight: float) -> None:
    """Launches `accumulate_kernel` over flat contiguous vectors of one device."""
    size = aggregate.numel()
    words, pairs = words_of(weight, aggregate)
    if size:
        accumulate_kernel[(triton.cdiv(size, BLOCK),)](
            aggregate,
            client,
            client if base is None else base,
            size,
            *words,
            HAS_BASE=base is not None,
            PAIRS=pairs,
            BLOCK=BLOCK,
            num_warps=warps_of(THREADS.value, aggregate.device),
            # A fused multiply-add rounds differently from what is written: bit equality needs it off.
            enable_fp_fusion=False,
        )


def accumulate_moments(
    aggregate: Tensor, client: Tensor, base: Tensor | None, weight: float, layers: Layers
) -> Tensor:
    """`accumulate` and, in the same pass, the moments of the new aggregate's layers.

    Args:
        aggregate, client, base, weight: contiguous vectors [P] of one device, and the weight.
        layers: L layers that do not overlap, in memory order.

    Returns:
        [5, L], float64.
    """
    table = tiles_of_all(layers, client, aggregate.numel(), MOMENTS_BLOCK)
    partials = torch.empty(5, table.count, dtype=torch.float64, device=aggregate.device)
    moments = torch.empty(5, len(layers.lengths), dtype=torch.float64, device=aggregate.device)
    words, pairs = words_of(weight, aggregate)
    others = (aggregate, client) if base is None else (aggregate, client, base)
    if table.count:
        accumulate_moments_kernel[(table.count,)](
            aggregate,
            client,
            client if base is None else base,
            *words,
            table.starts,
            table.firsts,
            table.stops,
            partials,
            table.count,
            HAS_BASE=base is not None,
            ALIGNED=all(in_step(other, client) for other in others),
            PAIRS=pairs,
            BLOCK=MOMENTS_BLOCK,
            num_warps=warps_of(THREADS.value, aggregate.device),
            enable_fp_fusion=False,  # bit equality with the reference
        )
    merge(partials, table, moments.shape[1], moments, pairs)
    return moments
