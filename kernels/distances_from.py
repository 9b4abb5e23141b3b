"""Computes the squared distances of clients from one point; every client is read where it lies, once.

One launch over groups of clients and tiles of columns, one over the clients, which adds up the tiles. Both
have a fixed order and no atomics. A client's sum does not depend on the others, nor on how many there are.

On GPUs with slow float64 (`pairs.use_pairs`) a tile's sums are kept in pairs of float32, and a difference is
a pair too: the sum base + centre, and the client minus it, are split without loss (two-sum), and what the
second split adds up to is rounded once. With u = 2^-24, that and the dropped square of the low part leave at
most 12 u^2 of each square. Each lane adds up N = 16 squares. An addition rounds away at most u times the
sum, which the low part gathers, and the low part at most u times what it holds: N^2 / 2 + 4 N of u^2 at most.
So a tile's sum is off by at most 210 u^2 = 7.5e-13 of itself, if all errors have one sign; as a rule it is
1e-15. Tiles that such pairs do not hold, with NaN or Inf, with squares that overflow or vanish, are computed
in float64; those of clients that equal the point are exactly 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from fedtlu_fast.kernels.clients import table_of
from fedtlu_fast.kernels.device import warps_of
from fedtlu_fast.kernels.pair_sums import two_difference
from fedtlu_fast.kernels.pairs import fused, square, two_sum, use_pairs
from fedtlu_fast.kernels.tiles import ALIGNMENT

# Chosen by the compiler's counts, not yet measured: a thread loads 16 bytes of each client of a group, of the
# base, and of the centre, at a time.
THREADS = 128
LANES = 4 * THREADS
SPAN = 16 * LANES
"""Columns of a tile; the error of the pairs is proven for 16 steps."""
GROUP = 4
"""Clients that share what is read of the base and the centre."""


@triton.jit
def _load(at, columns, stop, WHOLE: tl.constexpr):
    """Loads some columns, and 0 behind the last one."""
    return tl.load(at + columns) if WHOLE else tl.load(at + columns, columns < stop, other=0.0)


@triton.jit
def _difference(x, origin, origin_low, HAS_CENTRE: tl.constexpr):
    """Returns x - (origin + origin_low) as a pair whose high part is the difference rounded."""
    away, low = two_difference(x, origin)
    if HAS_CENTRE:
        # A fast two-sum: `away` is 0 or of larger magnitude than what is added.
        low -= origin_low
        first = away
        away += low
        low -= away - first
    return away, low


@triton.jit
def _in_pairs(
    client,
    base,
    centre,
    start,
    stop,
    end,
    HAS_CENTRE: tl.constexpr,
    GROUP: tl.constexpr,
    LANES: tl.constexpr,
    UNROLL: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Returns the sums of a tile [GROUP], float64, from pairs, and whether pairs hold them."""
    squares = tl.zeros((GROUP, LANES), dtype=tl.float32)
    squares_low = tl.zeros((GROUP, LANES), dtype=tl.float32)
    largest = tl.zeros((GROUP, LANES), dtype=tl.float32)
    for step in range(start, end, UNROLL * LANES):
        for inner in tl.static_range(UNROLL):
            columns = step + inner * LANES + tl.arange(0, LANES)[None, :]
            origin = _load(base, columns, stop, WHOLE)
            origin_low = tl.zeros_like(origin)
            if HAS_CENTRE:
                origin, origin_low = two_sum(origin, _load(centre, columns, stop, WHOLE))
            x = _load(client[:, None], columns, stop, WHOLE)
            away, low = _difference(x, origin, origin_low, HAS_CENTRE)
            p, error = square(away, False)
            error = fused(away + away, low, error)
            squares, lost = two_sum(squares, p)
            squares_low += lost + error
            largest = tl.maximum(largest, tl.abs(away))
    total = tl.sum(squares.to(tl.float64) + squares_low.to(tl.float64), axis=1)
    # From a mean square of 2^-98 on, all that vanishes below 2^-149 is less than 2^-49 of it.
    least = (tl.minimum(stop, end) - start).to(tl.float64) * 3.2e-30
    held = (total >= least) & (total <= 79228162514264337593543950336.0)  # 2^96
    return total, held | ((total == 0.0) & (tl.max(largest, axis=1) == 0.0))


@triton.jit
def _in_float64(
    client,
    base,
    centre,
    start,
    stop,
    end,
    HAS_CENTRE: tl.constexpr,
    GROUP: tl.constexpr,
    LANES: tl.constexpr,
    UNROLL: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Returns the sums of a tile [GROUP], computed in float64."""
    total = tl.zeros((GROUP, LANES), dtype=tl.float64)
    for step in range(start, end, UNROLL * LANES):
        for inner in tl.static_range(UNROLL):
            columns = step + inner * LANES + tl.arange(0, LANES)[None, :]
            origin = _load(base, columns, stop, WHOLE).to(tl.float64)
            if HAS_CENTRE:
                origin += _load(centre, columns, stop, WHOLE).to(tl.float64)
            away = _load(client[:, None], columns, stop, WHOLE).to(tl.float64) - origin
            total = tl.fma(away, away, total)
    return tl.sum(total, axis=1)


@triton.jit
def _tile(
    client,
    base,
    centre,
    start,
    stop,
    end,
    HAS_CENTRE: tl.constexpr,
    PAIRS: tl.constexpr,
    GROUP: tl.constexpr,
    LANES: tl.constexpr,
    UNROLL: tl.constexpr,
    WHOLE: tl.constexpr,
):
    # fmt: off
    if PAIRS:
        total, held = _in_pairs(client, base, centre, start, stop, end,
                                HAS_CENTRE, GROUP, LANES, UNROLL, WHOLE)
        if tl.min(held.to(tl.int32), axis=0) == 0:
            wide = _in_float64(client, base, centre, start, stop, end,
                               HAS_CENTRE, GROUP, LANES, UNROLL, WHOLE)
            total = tl.where(held, total, wide)
    else:
        total = _in_float64(client, base, centre, start, stop, end,
                            HAS_CENTRE, GROUP, LANES, UNROLL, WHOLE)
    # fmt: on
    return total


@triton.jit(do_not_specialize=["clients", "groups", "columns", "tiles"])
def distances_from_kernel(
    table,
    base,
    centre,
    partials,
    clients,
    groups,
    columns,
    tiles,
    HAS_CENTRE: tl.constexpr,
    ALIGNED: tl.constexpr,
    PAIRS: tl.constexpr,
    GROUP: tl.constexpr,
    LANES: tl.constexpr,
    SPAN: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """``partials[k, t] = sum_c (client_k[c] - (base[c] + centre[c]))^2`` over the columns of tile t.

    Args:
        table: [K], int64, the addresses of the clients, vectors [P] float32.
        base, centre: [P], float32; `centre` is not read without HAS_CENTRE.
        partials: [K, T], float64, out.
        clients: K.
        groups: of clients; those of one tile run side by side, so that a cache holds what they share.
        columns: P.
        tiles: T.
        ALIGNED: whether all vectors lie on 16 bytes.
        PAIRS: whether sums are kept in pairs of float32.
        GROUP: clients of a group.
        LANES: columns of a step; each has a sum of its own.
        SPAN: columns of a tile.
        UNROLL: steps of a turn, whose loads are made together.
    """
    group = tl.program_id(0) % groups
    tile = (tl.program_id(0) // groups).to(tl.int64)
    rows = group * GROUP + tl.arange(0, GROUP)
    # Rows behind the last one are the last one again.
    client = tl.load(table + tl.minimum(rows, clients - 1)).to(tl.pointer_type(tl.float32))
    if ALIGNED:
        client = tl.multiple_of(client, 16)
    start = tile * SPAN
    # fmt: off
    if start + SPAN <= columns:
        total = _tile(client, base, centre, start, columns, start + SPAN,
                      HAS_CENTRE, PAIRS, GROUP, LANES, UNROLL, True)
    else:
        total = _tile(client, base, centre, start, columns, columns.to(tl.int64),
                      HAS_CENTRE, PAIRS, GROUP, LANES, UNROLL, False)
    # fmt: on
    tl.store(partials + rows.to(tl.int64) * tiles + tile, total, rows < clients)


@triton.jit(do_not_specialize=["tiles"])
def add_tiles_kernel(out, partials, tiles, LANES: tl.constexpr):
    """``out[k] = sum_t partials[k, t]``, in float64."""
    row = partials + tl.program_id(0).to(tl.int64) * tiles
    total = tl.zeros((LANES,), dtype=tl.float64)
    for start in range(0, tiles, LANES):
        lanes = start + tl.arange(0, LANES)
        total += tl.load(row + lanes, lanes < tiles, other=0.0)
    tl.store(out + tl.program_id(0), tl.sum(total, axis=0))


def squared_distances_from(clients: Sequence[Tensor], base: Tensor, centre: Tensor | None) -> Tensor:
    """[K] float64 on the clients' device: ``||clients[k] - (base + centre)||^2``.

    Args:
        clients: K contiguous vectors [P] float32 on one device.
        base, centre: [P], float32, contiguous; None for a centre of zeros.
    """
    count, length = len(clients), len(base)
    if not length:
        return torch.zeros(count, dtype=torch.float64, device=base.device)
    group = min(GROUP, triton.next_power_of_2(count))
    groups, tiles = triton.cdiv(count, group), triton.cdiv(length, SPAN)
    partials = torch.empty((count, tiles), dtype=torch.float64, device=base.device)
    out = torch.empty(count, dtype=torch.float64, device=base.device)
    vectors = (base, *clients) if centre is None else (base, centre, *clients)
    warps = warps_of(THREADS, base.device)
    distances_from_kernel[(groups * tiles,)](
        table_of(clients),
        base,
        base if centre is None else centre,
        partials,
        count,
        groups,
        length,
        tiles,
        HAS_CENTRE=centre is not None,
        ALIGNED=all(vector.data_ptr() % ALIGNMENT == 0 for vector in vectors),
        PAIRS=use_pairs(torch.float32, base.device),
        GROUP=group,
        LANES=LANES,
        SPAN=SPAN,
        UNROLL=GROUP // group,
        num_warps=warps,
        enable_fp_fusion=False,  # the pairs' arithmetic must stay as it is written
    )
    add_tiles_kernel[(count,)](out, partials, tiles, LANES=THREADS, num_warps=warps)
    return out
