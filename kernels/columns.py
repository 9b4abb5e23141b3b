"""Computes the mean of the middle values of every column over the clients: median and trimmed mean.

Every client is read where it lies, once, and the columns are sorted in registers (`network`). More clients
than registers hold go through `runs`. Sums are in float64, from the smallest value to the largest, as in the
reference: the bits are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from fedtlu_fast.kernels import runs
from fedtlu_fast.kernels.clients import table_of
from fedtlu_fast.kernels.device import warps_of
from fedtlu_fast.kernels.network import LARGEST_KEY, LEAST_KEY, key_of, number_of, sort
from fedtlu_fast.kernels.tiles import ALIGNMENT

# Chosen by the compiler's register counts, not yet measured: a thread holds 64 keys, or 128 of one column.
THREADS = 128
LARGEST = 112
"""The most clients whose columns are sorted in registers; the compiler takes minutes for a few more."""
GROUP = tl.constexpr(8)
"""Kernels are compiled for multiples of so many rows: a round in which a client fails needs no new one."""


@triton.jit(do_not_specialize=["clients", "before", "first", "last"])
def sorted_mean_kernel(
    out,
    table,
    base,
    clients,
    start,
    stop,
    before,
    first,
    last,
    HAS_BASE: tl.constexpr,
    MIDDLE: tl.constexpr,
    ALIGNED: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    LOG: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``out = mean of the sorted rows first .. last - 1`` of a tile; see `reference.sorted_mean`.

    Args:
        out: [P], float32.
        table: [K], int64, the addresses of the clients, vectors [P] float32.
        base: [P], float32; not read without HAS_BASE.
        clients: K.
        start, stop: the columns that are wanted.
        before: rows of the least key before the clients, 0 without MIDDLE; rows of NaN come behind them.
        first, last: rows of the sorted tile.
        MIDDLE: whether `first` is ``ROWS // 2 - 1``, and `last` at most two more: then the compiler leaves
            out what these rows do not depend on.
        ALIGNED: whether all vectors lie on 16 bytes.
        WIDTH: columns of a thread side by side.
        ROWS: rows of the tile that may be clients.
        LOG: the tile has 2^LOG rows.
        BLOCK: columns of the tile.
    """
    at = start + tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < stop
    row = tl.arange(0, 1 << LOG)
    place = row - before
    # Fewer than GROUP rows are no clients: of most rows the compiler knows what they are.
    missing = (row < GROUP) & (place < 0)
    there = ~missing & ((row < ROWS - GROUP) | (place < clients))
    client = tl.load(table + place, there, other=0).to(tl.pointer_type(tl.float32))
    if ALIGNED:
        # No more than a thread's own columns: wider loads would give a column to several threads.
        client = tl.multiple_of(client, 4 * WIDTH)
    x = tl.load(client[:, None] + at[None, :], there[:, None] & inside[None, :], other=float("nan"))
    if HAS_BASE:
        x -= tl.load(base + at, inside, other=0.0)[None, :]
    keys = key_of(x)  # rows behind the clients have the key of NaN, which comes last
    if MIDDLE:
        keys = tl.where(missing[:, None], LEAST_KEY, keys)
    keys = sort(tl.where(row[:, None] < ROWS, keys, LARGEST_KEY), LOG)
    total = tl.zeros((BLOCK,), dtype=tl.float64)
    if MIDDLE:
        total += number_of(_row(keys, ROWS // 2 - 1, LOG))
        if last - first == 2:
            total += number_of(_row(keys, ROWS // 2, LOG))
            total *= 0.5
    else:
        # Rows are taken out in two steps, of which the compiler keeps nothing but a name.
        grouped = tl.reshape(keys, [1 << (LOG - 2), 4, BLOCK])
        for group in tl.static_range(ROWS // 4):
            four = tl.sum(tl.where(tl.arange(0, 1 << (LOG - 2))[:, None, None] == group, grouped, 0), axis=0)
            for inner in tl.static_range(4):
                if (4 * group + inner >= first) & (4 * group + inner < last):
                    total += number_of(_row(four, inner, 2))
        total /= (last - first).to(tl.float64)
    tl.store(out + at, total.to(tl.float32), inside)


@triton.jit
def _row(keys, row: tl.constexpr, LOG: tl.constexpr):
    """Returns one row of a tile [2^LOG, BLOCK]; the sum is the compiler's way to name it."""
    return tl.sum(tl.where(tl.arange(0, 1 << LOG)[:, None] == row, keys, 0), axis=0)


def sorted_mean(out: Tensor, clients: Sequence[Tensor], base: Tensor | None, first: int, last: int) -> None:
    """Writes the mean of the sorted values number `first` to ``last - 1`` of every column.

    Args:
        out: [P], float32, contiguous. It may be one of the clients.
        clients: K contiguous vectors [P] float32 on the device of `out`.
        base: [P], is subtracted from every client; None for zeros.
        first, last: ``0 <= first < last <= K``.
    """
    if not out.numel():
        return
    if len(clients) > LARGEST:
        runs.sorted_mean(out, clients, base, first, last)
        return
    vectors = (out, *clients) if base is None else (out, *clients, base)
    aligned = all(vector.data_ptr() % ALIGNMENT == 0 for vector in vectors)
    # A mask that ends at no multiple of 16 would split the loads: the rest has a launch of its own.
    whole = len(out) // 16 * 16 if aligned else 0
    for start, stop in ((0, whole), (whole, len(out))):
        if start < stop:
            _launch(out, clients, base, (start, stop), (first, last), aligned and stop == whole)


def _launch(
    out: Tensor,
    clients: Sequence[Tensor],
    base: Tensor | None,
    columns: tuple[int, int],
    places: tuple[int, int],
    aligned: bool,
) -> None:
    """Launches `sorted_mean_kernel` over some columns."""
    (start, stop), (first, last), count = columns, places, len(clients)
    rows = 4 if count <= 4 else triton.cdiv(count, GROUP.value) * GROUP.value
    before = rows // 2 - 1 - first
    middle = last - first <= 2 and 0 <= before <= rows - count
    before = before if middle else 0
    log = (rows - 1).bit_length()
    width = max(1, min(4, 64 >> log))
    block = THREADS * width
    sorted_mean_kernel[(triton.cdiv(stop - start, block),)](
        out,
        table_of(clients),
        out if base is None else base,
        count,
        start,
        stop,
        before,
        first + before,
        last + before,
        HAS_BASE=base is not None,
        MIDDLE=middle,
        ALIGNED=aligned,
        WIDTH=width,
        ROWS=rows,
        LOG=log,
        BLOCK=block,
        num_warps=warps_of(THREADS, out.device),
    )
