"""Computes ``aggregate += weight * (client - base)`` in one launch, or in two with the layers' moments."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fedtlu_fast.kernels.merge import merge
from fedtlu_fast.kernels.numbers import double, double_words, widen
from fedtlu_fast.kernels.pairs import use_pairs
from fedtlu_fast.kernels.single_step import lane_zero, put_moments, read, tiles_of_all, write
from fedtlu_fast.kernels.tiles import Layers, in_step

# Chosen for Hopper by reasoning, not yet measured: two (float32) or four (float64) 16-byte loads per thread
# from each of three arrays.
NUM_WARPS = 4
BLOCK = 1024
# With moments: 16 elements per thread take about 93 registers.
MOMENTS_BLOCK = 2048


@triton.jit
def _accumulate(aggregate, client, base, at, inside, weight, HAS_BASE: tl.constexpr, WHOLE: tl.constexpr):
    if WHOLE:  # a mask would split the 16-byte loads
        total = tl.load(aggregate + at)
        change = widen(tl.load(client + at)).to(tl.float64)
        if HAS_BASE:
            change -= widen(tl.load(base + at)).to(tl.float64)
        tl.store(aggregate + at, (total.to(tl.float64) + weight * change).to(total.dtype))
    else:
        total = tl.load(aggregate + at, inside, other=0.0)
        change = widen(tl.load(client + at, inside, other=0.0)).to(tl.float64)
        if HAS_BASE:
            change -= widen(tl.load(base + at, inside, other=0.0)).to(tl.float64)
        tl.store(aggregate + at, (total.to(tl.float64) + weight * change).to(total.dtype), inside)


@triton.jit(do_not_specialize=["weight_high", "weight_low"])
def accumulate_kernel(
    aggregate,
    client,
    base,
    size,
    weight_high,
    weight_low,
    HAS_BASE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``aggregate = round(aggregate + weight * (client - base))``, every step in float64, rounded once.

    Args:
        aggregate: [P], float32 or float64.
        client, base: [P], that or 16 bits wide; `base` is not read without HAS_BASE.
        size: P.
        weight_high, weight_low: see `numbers.double`.
        HAS_BASE, BLOCK: whether there is a base; elements per program.
    """
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    at = begin + tl.arange(0, BLOCK)  # [BLOCK]
    weight = double(weight_high, weight_low)
    if begin + BLOCK <= size:
        _accumulate(aggregate, client, base, at, at < size, weight, HAS_BASE, True)
    else:
        _accumulate(aggregate, client, base, at, at < size, weight, HAS_BASE, False)


@triton.jit
def _accumulate_moments(
    aggregate,
    client,
    base,
    weight,
    first,
    stop,
    partials,
    tiles,
    HAS_BASE: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
    WHOLE: tl.constexpr,
):
    total = read(aggregate, first, stop, BLOCK, WHOLE)
    change = widen(read(client, first, stop, BLOCK, WHOLE)).to(tl.float64)
    if HAS_BASE:
        change -= widen(read(base, first, stop, BLOCK, WHOLE)).to(tl.float64)
    rounded = (total.to(tl.float64) + weight * change).to(total.dtype)
    write(aggregate, rounded, first, stop, BLOCK, WHOLE)
    put_moments(rounded, first, stop, partials, tiles, False, PAIRS, BLOCK, WHOLE)


@triton.jit(do_not_specialize=["weight_high", "weight_low", "tiles"])
def accumulate_moments_kernel(
    aggregate,
    client,
    base,
    weight_high,
    weight_low,
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
        weight_high, weight_low: see `numbers.double`.
        starts, firsts, stops: [T], the tile table, seen from `client`.
        partials: [5, T], float64, out (see `layer_stats.tile_moments_kernel`).
        tiles: T.
        ALIGNED: whether all vectors lie on 16 bytes at the same indices.
        PAIRS: whether sums are kept in pairs of float32; not for float64.
        HAS_BASE, BLOCK: whether there is a base; elements per tile.
    """
    tile = tl.program_id(0).to(tl.int64)
    start = tl.load(starts + tile)
    first = tl.load(firsts + tile).to(tl.int32)
    stop = tl.load(stops + tile).to(tl.int32)
    weight = double(weight_high, weight_low)
    aggregate = lane_zero(aggregate, start, ALIGNED)
    client = lane_zero(client, start, ALIGNED)
    base = lane_zero(base, start, ALIGNED)
    partials += tile
    # fmt: off
    if (first == 0) & (stop == BLOCK):
        _accumulate_moments(aggregate, client, base, weight, first, stop, partials, tiles,
                            HAS_BASE, PAIRS, BLOCK, True)
    else:
        _accumulate_moments(aggregate, client, base, weight, first, stop, partials, tiles,
                            HAS_BASE, PAIRS, BLOCK, False)
    # fmt: on


def accumulate(aggregate: Tensor, client: Tensor, base: Tensor | None, weight: float) -> None:
    """Launches `accumulate_kernel` over flat contiguous vectors of one device."""
    size = aggregate.numel()
    if size:
        accumulate_kernel[(triton.cdiv(size, BLOCK),)](
            aggregate,
            client,
            client if base is None else base,
            size,
            *double_words(weight),
            HAS_BASE=base is not None,
            BLOCK=BLOCK,
            num_warps=NUM_WARPS,
            # A fused multiply-add rounds differently from the reference: bit equality needs it off.
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
    pairs = use_pairs(aggregate.dtype, aggregate.device)
    others = (aggregate, client) if base is None else (aggregate, client, base)
    if table.count:
        accumulate_moments_kernel[(table.count,)](
            aggregate,
            client,
            client if base is None else base,
            *double_words(weight),
            table.starts,
            table.firsts,
            table.stops,
            partials,
            table.count,
            HAS_BASE=base is not None,
            ALIGNED=all(in_step(other, client) for other in others),
            PAIRS=pairs,
            BLOCK=MOMENTS_BLOCK,
            num_warps=NUM_WARPS,
            enable_fp_fusion=False,  # bit equality with the reference
        )
    merge(partials, table, moments.shape[1], moments, pairs)
    return moments
