"""Computes ``aggregate += weight * (client - base)`` in one launch, or in two with the layers' moments."""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from fedtlu_fast.kernels.anchored import THREADS
from fedtlu_fast.kernels.device import warps_of
from fedtlu_fast.kernels.merge import merge
from fedtlu_fast.kernels.numbers import double, double_words, widen
from fedtlu_fast.kernels.pair_sums import (
    add_product,
    power_of_two,
    scale_of,
    settle,
    split,
    two_difference,
)
from fedtlu_fast.kernels.pairs import use_pairs
from fedtlu_fast.kernels.single_step import lane_zero, put_moments, read, tiles_of_all, write
from fedtlu_fast.kernels.tiles import Layers, in_step

# Chosen for Hopper by reasoning, not yet measured: two (float32) or four (float64) 16-byte loads per thread
# from each of three arrays.
BLOCK = 1024
# With moments: 16 elements per thread take about 93 registers.
MOMENTS_BLOCK = 2048


@triton.jit
def _added(
    aggregate,
    client,
    base,
    first,
    stop,
    weight,
    HAS_BASE: tl.constexpr,
    BLOCK: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Returns the new numbers of a tile, computed in float64."""
    total = read(aggregate, first, stop, BLOCK, WHOLE)
    change = widen(read(client, first, stop, BLOCK, WHOLE)).to(tl.float64)
    if HAS_BASE:
        change -= widen(read(base, first, stop, BLOCK, WHOLE)).to(tl.float64)
    return (total.to(tl.float64) + weight * change).to(total.dtype)


@triton.jit
def _accumulate(
    aggregate,
    client,
    base,
    first,
    stop,
    weight_words,
    scale,
    HAS_BASE: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Stores the new numbers of a tile, and returns them."""
    weight = double(weight_words[0], weight_words[1])
    if PAIRS:
        high, low = weight_words[2].to(tl.float32, bitcast=True), weight_words[3].to(tl.float32, bitcast=True)
        total = read(aggregate, first, stop, BLOCK, WHOLE) * power_of_two(scale)
        change = widen(read(client, first, stop, BLOCK, WHOLE))
        change_low = change
        if HAS_BASE:
            change, change_low = two_difference(change, widen(read(base, first, stop, BLOCK, WHOLE)))
        total, total_low = add_product(total, tl.zeros_like(total), change, change_low, high, low, HAS_BASE)
        rounded, right = settle(total, total_low, scale)
        if not right:
            rounded = _added(aggregate, client, base, first, stop, weight, HAS_BASE, BLOCK, WHOLE)
    else:
        rounded = _added(aggregate, client, base, first, stop, weight, HAS_BASE, BLOCK, WHOLE)
    write(aggregate, rounded, first, stop, BLOCK, WHOLE)
    return rounded


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
        weight_high, weight_low: see `numbers.double`.
        pair_high, pair_low, scale: the weight as two float32, by their bits, and its scale; read with PAIRS.
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
        _accumulate(aggregate, client, base, 0, left, words, scale, HAS_BASE, PAIRS, BLOCK, True)
    else:
        _accumulate(aggregate, client, base, 0, left, words, scale, HAS_BASE, PAIRS, BLOCK, False)


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
        new = _accumulate(aggregate, client, base, first, stop, words, scale, HAS_BASE, PAIRS, BLOCK, True)
        put_moments(new, first, stop, partials, tiles, VECTOR, PAIRS, BLOCK, True)
    else:
        new = _accumulate(aggregate, client, base, first, stop, words, scale, HAS_BASE, PAIRS, BLOCK, False)
        put_moments(new, first, stop, partials, tiles, VECTOR, PAIRS, BLOCK, False)
    # fmt: on


def _words(aggregate: Tensor, weight: float) -> tuple[tuple[int, ...], bool]:
    """Returns the kernels' arguments for a weight, and whether they are for pairs."""
    one = np.array([weight], dtype=np.float64)
    scale = scale_of(one) if use_pairs(aggregate.dtype, aggregate.device) else None
    if scale is None:
        return (*double_words(weight), 0, 0, 0), False
    high, low = split(one, scale).view(np.int32)[0].tolist()
    return (*double_words(weight), high, low, scale), True


def accumulate(aggregate: Tensor, client: Tensor, base: Tensor | None, weight: float) -> None:
    """Launches `accumulate_kernel` over flat contiguous vectors of one device."""
    size = aggregate.numel()
    words, pairs = _words(aggregate, weight)
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
    words, pairs = _words(aggregate, weight)
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
