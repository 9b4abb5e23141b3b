"""Computes the clients' weighted sum with the moments of its layers; every client is read only once.

One launch over the tiles, one over the layers. Here a tile is a single step: its sum, and the numbers for its
moments, stay in registers while the kernel goes through the clients. Both launches have a fixed order and no
atomics, so the bits are the same every time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from fedtlu_fast.kernels.anchored import THREADS
from fedtlu_fast.kernels.clients import table_of
from fedtlu_fast.kernels.device import warps_of
from fedtlu_fast.kernels.merge import merge
from fedtlu_fast.kernels.numbers import floats, widen
from fedtlu_fast.kernels.pair_sums import add_product, scale_of, settle, two_difference
from fedtlu_fast.kernels.pairs import use_pairs
from fedtlu_fast.kernels.single_step import lane_zero, put_moments, read, tiles_of_all, write
from fedtlu_fast.kernels.tiles import Layers, in_step

# Chosen by the compiler's counts, not yet measured. With every client's statistics a thread has 16 elements,
# so that joining the threads' sums, once for each client, costs less for each element.
BLOCK = 1024
BLOCK_WITH_CLIENTS = 2048


@triton.jit
def _weighted_sum(
    table,
    base,
    clients,
    start,
    first,
    stop,
    partials,
    tiles,
    HAS_BASE: tl.constexpr,
    CLIENT_STATS: tl.constexpr,
    ALIGNED: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Returns the sum and its low part: float32 and scaled with PAIRS, else float64 and zeros."""
    VECTOR: tl.constexpr = 128 // base.dtype.element_ty.primitive_bitwidth
    if HAS_BASE:
        origin = read(lane_zero(base, start, ALIGNED), first, stop, BLOCK, WHOLE)
    total = tl.zeros((BLOCK,), dtype=tl.float32 if PAIRS else tl.float64)
    low = tl.zeros((BLOCK,), dtype=tl.float32)
    client = tl.load(table).to(base.dtype)
    x = read(lane_zero(client, start, ALIGNED), first, stop, BLOCK, WHOLE)
    row = partials
    for k in range(clients):
        # The next client is loaded while this one is added. Behind the last client's address lies a weight:
        # it is read from the table, but nothing is loaded from it.
        client = tl.load(table + k + 1).to(base.dtype)
        left = tl.where(k + 1 < clients, stop, 0)
        ahead = read(lane_zero(client, start, ALIGNED), first, left, BLOCK, WHOLE)
        change = widen(x)
        if PAIRS:
            weight, weight_low = floats(tl.load(table + 2 * clients + k))
            change_low = change
            if HAS_BASE:
                change, change_low = two_difference(change, widen(origin))
            total, low = add_product(total, low, change, change_low, weight, weight_low, HAS_BASE)
        else:
            weight = tl.load(table + clients + k).to(tl.float64, bitcast=True)
            wide = change.to(tl.float64)
            if HAS_BASE:
                wide -= widen(origin).to(tl.float64)
                # The bits of float64's difference, rounded to float32: 53 digits exceed 2 * 24 + 1.
                change -= widen(origin)
            total += weight * wide
        if CLIENT_STATS:
            row += 5 * tiles
            put_moments(change, first, stop, row, tiles, VECTOR, PAIRS, BLOCK, WHOLE)
        x = ahead
    return total, low


@triton.jit
def _aggregate(
    out,
    table,
    base,
    clients,
    scale,
    start,
    first,
    stop,
    partials,
    tiles,
    HAS_BASE: tl.constexpr,
    CLIENT_STATS: tl.constexpr,
    ALIGNED: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
    WHOLE: tl.constexpr,
):
    # fmt: off
    total, low = _weighted_sum(table, base, clients, start, first, stop, partials, tiles,
                               HAS_BASE, CLIENT_STATS, ALIGNED, PAIRS, BLOCK, WHOLE)
    if PAIRS:
        rounded, right = settle(total, low, scale)
        if not right:
            wide, _ = _weighted_sum(table, base, clients, start, first, stop, partials, tiles,
                                    HAS_BASE, False, ALIGNED, False, BLOCK, WHOLE)
            rounded = wide.to(tl.float32)
    else:
        rounded = total.to(out.dtype.element_ty)
    # fmt: on
    write(lane_zero(out, start, ALIGNED), rounded, first, stop, BLOCK, WHOLE)
    VECTOR: tl.constexpr = 128 // base.dtype.element_ty.primitive_bitwidth
    put_moments(rounded, first, stop, partials, tiles, VECTOR, PAIRS, BLOCK, WHOLE)


@triton.jit(do_not_specialize=["clients", "scale", "tiles"])
def aggregate_kernel(
    out,
    table,
    base,
    clients,
    scale,
    starts,
    firsts,
    stops,
    partials,
    tiles,
    HAS_BASE: tl.constexpr,
    CLIENT_STATS: tl.constexpr,
    ALIGNED: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``out = round(sum_k weight_k * (client_k - base))`` over one tile, in order.

    Every step is in float64, or with PAIRS in pairs of float32 (`pair_sums.py`).

    Args:
        out: [P], float32 or float64.
        table: [2 K] or [3 K], see `clients.table_of`.
        base: [P], of the clients' dtype; without HAS_BASE only its dtype counts.
        clients: K, at least 1.
        scale: of the weights (`pair_sums.scale_of`); read with PAIRS.
        starts, firsts, stops: [T], the tile table, seen from the first client.
        partials: [1 + K, 5, T] with CLIENT_STATS, else [1, 5, T], float64, out: the moments of the rounded
            sum's tile, then of each client's change (see `layer_stats.tile_moments_kernel`).
        tiles: T.
        ALIGNED: whether all vectors lie on 16 bytes at the same indices.
        PAIRS: whether all sums are kept in pairs of float32; not for float64.
        BLOCK: elements per tile.
    """
    tile = tl.program_id(0).to(tl.int64)
    start = tl.load(starts + tile)
    first = tl.load(firsts + tile).to(tl.int32)
    stop = tl.load(stops + tile).to(tl.int32)
    partials += tile
    # fmt: off
    if (first == 0) & (stop == BLOCK):
        _aggregate(out, table, base, clients, scale, start, first, stop, partials, tiles,
                   HAS_BASE, CLIENT_STATS, ALIGNED, PAIRS, BLOCK, True)
    else:
        _aggregate(out, table, base, clients, scale, start, first, stop, partials, tiles,
                   HAS_BASE, CLIENT_STATS, ALIGNED, PAIRS, BLOCK, False)
    # fmt: on


def aggregate(
    out: Tensor, clients: Sequence[Tensor], weights: Tensor, base: Tensor | None, layers: Layers, each: bool
) -> Tensor:
    """Fills `out`, and computes the moments of its layers and, with `each`, of the clients' changes.

    Args:
        out: [P], float32 or float64, contiguous; overwritten. It may be one of the clients.
        clients: K >= 1 vectors [P] of one dtype, contiguous.
        weights: [K], float64, on the CPU, contiguous.
        base: [P], of the clients' dtype, contiguous, or None.
        layers: L layers that do not overlap, in memory order.
        each: whether to compute the moments of the clients.

    Returns:
        [5, V, L], float64: the moments of the sum and, with `each`, of every client; V is 1 or 1 + K.
    """
    vectors = 1 + len(clients) if each else 1
    count = len(layers.lengths)
    scale = scale_of(weights.numpy()) if use_pairs(out.dtype, out.device) else None
    pairs = scale is not None
    # In float64, twice as many sums and a base's elements do not fit into the registers.
    fits = pairs or (base is None and out.dtype == torch.float32)
    block = BLOCK_WITH_CLIENTS if each and fits else BLOCK
    table = tiles_of_all(layers, clients[0], out.numel(), block)
    partials = torch.empty(vectors, 5, table.count, dtype=torch.float64, device=out.device)
    moments = torch.empty(5, vectors, count, dtype=torch.float64, device=out.device)
    others = (out, *clients) if base is None else (out, *clients, base)
    if table.count:
        aggregate_kernel[(table.count,)](
            out,
            table_of(clients, weights, scale),
            clients[0] if base is None else base,
            len(clients),
            scale or 0,
            table.starts,
            table.firsts,
            table.stops,
            partials,
            table.count,
            HAS_BASE=base is not None,
            CLIENT_STATS=each,
            ALIGNED=all(in_step(other, clients[0]) for other in others),
            PAIRS=pairs,
            BLOCK=block,
            num_warps=warps_of(THREADS.value, out.device),
            enable_fp_fusion=False,  # bit equality with the reference, as in accumulate.py
        )
    merge(partials, table, count, moments.view(5, vectors * count), pairs)
    return moments
