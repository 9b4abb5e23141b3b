"""Sorts columns of more clients than registers hold, and averages the middle: `columns` for large cohorts.

Some columns at a time are sorted in a memory of fixed size that a GPU's cache holds: runs of 64 clients in
registers, then by merges (`network`), of which a launch does six layers in registers. So nothing is copied
that is not sorted at the time, and the work grows with the square of the logarithm of the clients.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from fedtlu_fast.kernels import network
from fedtlu_fast.kernels.clients import table_of
from fedtlu_fast.kernels.device import warps_of
from fedtlu_fast.kernels.network import LARGEST_KEY, key_of, number_of

# Chosen by reasoning, not yet measured. 32 MiB of keys stay in the second-level cache of most GPUs.
THREADS = 128
BLOCK = THREADS
LOG = 6
RUN = 1 << LOG
KEYS = 2**23


@triton.jit(do_not_specialize=["clients", "width", "start", "stop"])
def sort_runs_kernel(
    keys,
    table,
    base,
    clients,
    width,
    start,
    stop,
    HAS_BASE: tl.constexpr,
    LOG: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sorts 2^LOG clients of BLOCK columns, and stores their keys.

    Args:
        keys: [K, W], int32, out.
        table: [K], int64, the addresses of the clients, vectors [P] float32.
        base: [P], float32; not read without HAS_BASE.
        clients: K.
        width: W.
        start, stop: the columns that are wanted.
        HAS_BASE, LOG, BLOCK: whether there is a base; rows and columns of a tile.
    """
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at = start + column.to(tl.int64)
    inside = at < stop
    row = tl.program_id(1) * (1 << LOG) + tl.arange(0, 1 << LOG)
    there = row < clients
    client = tl.load(table + row, there, other=0).to(tl.pointer_type(tl.float32))
    wanted = there[:, None] & inside[None, :]
    x = tl.load(client[:, None] + at[None, :], wanted, other=float("nan"))
    if HAS_BASE:
        x -= tl.load(base + at, inside, other=0.0)[None, :]
    found = network.sort(key_of(x), LOG)  # rows behind the clients are NaN, which comes last
    tl.store(keys + row[:, None] * width + column[None, :], found, wanted)


@triton.jit(do_not_specialize=["clients", "width", "columns", "step"])
def merge_runs_kernel(
    keys,
    clients,
    width,
    columns,
    step,
    MIRROR: tl.constexpr,
    LAYERS: tl.constexpr,
    LOG: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Does some layers of a merge on 2^LOG rows, a step apart, of BLOCK columns.

    Args:
        keys: [K, W], int32; rows behind the last have the largest key.
        clients: K.
        width: W.
        columns: how many of them count.
        step: rows between two of the tile; so many programs share a block of ``step * 2^LOG`` rows.
        MIRROR: whether the later half of the tile mirrors the first one: a merge begins.
        LAYERS: layers after that, of rows at half the tile's height, or less, and so on down to one.
        LOG, BLOCK: rows and columns of a tile.
    """
    ROWS: tl.constexpr = 1 << LOG
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    block = tl.program_id(1) // step
    inner = tl.program_id(1) % step
    place = tl.arange(0, ROWS)
    row = block * step * ROWS + place * step + inner
    if MIRROR:
        row = tl.where(place < ROWS // 2, row, row + step - 1 - 2 * inner)
    there = row < clients
    wanted = there[:, None] & (column < columns)[None, :]
    at = keys + row[:, None] * width + column[None, :]
    x = network.cube(tl.load(at, wanted, other=LARGEST_KEY), LOG)
    x = network.merge(x, LOG, LOG) if MIRROR else network.clean(x, LAYERS, LOG)
    tl.store(at, network.tile(x, LOG), wanted)


@triton.jit(do_not_specialize=["width", "start", "stop", "first", "last"])
def average_kernel(out, keys, width, start, stop, first, last, BLOCK: tl.constexpr):
    """``out = mean of the rows first .. last - 1`` of sorted keys [K, W], in float64, from the first on."""
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = start + column < stop
    total = tl.zeros((BLOCK,), dtype=tl.float64)
    at = keys + first.to(tl.int64) * width + column
    for _ in range(first, last):
        total += number_of(tl.load(at, inside, other=0))
        at += width
    total /= (last - first).to(tl.float64)
    tl.store(out + start + column, total.to(tl.float32), inside)


def sorted_mean(out: Tensor, clients: Sequence[Tensor], base: Tensor | None, first: int, last: int) -> None:
    """See `columns.sorted_mean`; for any number of clients."""
    count, length = len(clients), len(out)
    table = table_of(clients)
    width = min(triton.cdiv(length, BLOCK), max(1, KEYS // (count * BLOCK))) * BLOCK
    keys = torch.empty((count, width), dtype=torch.int32, device=out.device)
    shape = {"LOG": LOG, "BLOCK": BLOCK, "num_warps": warps_of(THREADS, out.device)}
    runs = triton.cdiv(count, RUN)
    for start in range(0, length, width):
        stop = min(start + width, length)
        columns = stop - start
        blocks = triton.cdiv(columns, BLOCK)
        sort_runs_kernel[(blocks, runs)](
            keys,
            table,
            out if base is None else base,
            count,
            width,
            start,
            stop,
            HAS_BASE=base is not None,
            **shape,
        )
        for step, mirror, layers in _merges(count):
            groups = triton.cdiv(count, step * RUN) * step
            arguments = (keys, count, width, columns, step)
            merge_runs_kernel[(blocks, groups)](*arguments, MIRROR=mirror, LAYERS=layers, **shape)
        average_kernel[(blocks,)](
            out, keys, width, start, stop, first, last, BLOCK=BLOCK, num_warps=shape["num_warps"]
        )


def _merges(count: int) -> list[tuple[int, bool, int]]:
    """Returns the launches that merge sorted runs: the step, whether they mirror, and the layers."""
    found = []
    size = 2 * RUN
    while size < 2 * count:
        step = size // RUN
        found.append((step, True, LOG - 1))
        left = step.bit_length() - 1
        while left:  # layers of rows at the distances 2^(left - 1), ..., 1
            layers = min(left, LOG)
            left -= layers
            found.append((1 << left if layers == LOG else 1, False, layers))
        size *= 2
    return found
