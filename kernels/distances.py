"""Computes the squared distances of clients, from direct differences in float64.

One launch over blocks of pairs and segments of columns. The sums of the segments are added in one order and
there are no atomics, so the bits are the same every time. A pair's sum does not depend on its place in a
block, nor on which of the two is first, so that equal clients have equal distances to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from fedtlu_fast.kernels.device import warps_of
from fedtlu_fast.kernels.upload import upload

# Chosen by reasoning, not yet measured: each of 128 threads holds 16 sums, and an element serves eight
# differences. 64 to 72 registers, without spills, on sm_80, 86 and 90.
THREADS = 128
ROWS = 8
COLUMNS = 8
LANES = 32
SEGMENTS = 64
"""The columns are cut into at most this many segments, each of at least `LEAST` columns."""
LEAST = 16 * 1024


@triton.jit(do_not_specialize=["chosen", "clients", "columns", "span"])
def squared_distances_kernel(
    left_table,
    right_table,
    sums,
    chosen,
    clients,
    columns,
    span,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    LANES: tl.constexpr,
):
    """``sums[s, i, j] = sum_c (left[i][c] - right[j][c])^2`` over the columns of segment s, in float64.

    Args:
        left_table: [C], int64, the addresses of the chosen clients, vectors [P] float32.
        right_table: [K], int64, the addresses of all clients.
        sums: [S, C, K], float64, out.
        chosen: C.
        clients: K.
        columns: P.
        span: columns of a segment.
        WHOLE: whether all are chosen, in order; blocks below the diagonal are then left out.
        ROWS, COLUMNS: clients of a block of pairs.
        LANES: columns per step; each has a sum of its own.
    """
    first_row = tl.program_id(0) * ROWS
    first_column = tl.program_id(1) * COLUMNS
    segment = tl.program_id(2).to(tl.int64)
    if not WHOLE or first_column + COLUMNS > first_row:
        rows, others = first_row + tl.arange(0, ROWS), first_column + tl.arange(0, COLUMNS)
        # Rows behind the last one are the last one again.
        left = tl.load(left_table + tl.minimum(rows, chosen - 1)).to(tl.pointer_type(tl.float32))
        right = tl.load(right_table + tl.minimum(others, clients - 1)).to(tl.pointer_type(tl.float32))
        total = tl.zeros((ROWS, COLUMNS, LANES), dtype=tl.float64)
        stop = tl.minimum((segment + 1) * span, columns)
        for start in range(segment * span, stop, LANES):
            lanes = start + tl.arange(0, LANES)
            x = tl.load(left[:, None] + lanes[None, :], lanes[None, :] < stop, other=0.0)
            y = tl.load(right[:, None] + lanes[None, :], lanes[None, :] < stop, other=0.0)
            away = x.to(tl.float64)[:, None, :] - y.to(tl.float64)[None, :, :]
            total += away * away
        inside = (rows[:, None] < chosen) & (others[None, :] < clients)
        place = (segment * chosen + rows[:, None]) * clients + others[None, :]
        tl.store(sums + place, tl.sum(total, axis=2), inside)


def squared_distances(clients: Sequence[Tensor], chosen: Sequence[int]) -> Tensor:
    """[C, K] float64 on the clients' device, zeros where a client meets itself.

    Args:
        clients: K contiguous vectors [P] float32 on one device.
        chosen: C different places among them.
    """
    count, number, length = len(chosen), len(clients), len(clients[0])
    segments = max(1, min(SEGMENTS, length // LEAST))
    device = clients[0].device
    sums = torch.zeros((segments, count, number), dtype=torch.float64, device=device)
    if not count or not length:
        return sums[0]
    addresses = torch.tensor([client.data_ptr() for client in clients]).numpy()
    whole = list(chosen) == list(range(number))
    grid = (triton.cdiv(count, ROWS), triton.cdiv(number, COLUMNS), segments)
    squared_distances_kernel[grid](
        upload(addresses[list(chosen)], device).values,
        upload(addresses, device).values,
        sums,
        count,
        number,
        length,
        triton.cdiv(length, segments),
        WHOLE=whole,
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        LANES=LANES,
        num_warps=warps_of(THREADS, device),
    )
    total = sums[0]
    for segment in sums[1:]:
        total += segment
    if whole:
        total = total.triu(1)
        return total + total.T
    total[range(count), list(chosen)] = 0
    return total
