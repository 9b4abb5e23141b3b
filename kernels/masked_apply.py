"""Computes ``params[layer] += lr * delta[layer]`` for the chosen layers in one launch over their tiles."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fedtlu_fast.kernels.device import warps_of
from fedtlu_fast.kernels.tiles import ALIGNMENT, Layers, in_step, tiles_of
from fedtlu_fast.kernels.weighted import add_weighted, words_of

# Chosen by the compiler's counts, not yet measured: a thread makes four 16-byte loads from `params`. With
# eight, for 16-bit changes, registers would spill.
THREADS = 128
BLOCK_BYTES = 8192


@triton.jit(do_not_specialize=["lr_high", "lr_low", "pair_high", "pair_low", "scale"])
def masked_apply_kernel(
    params,
    delta,
    starts,
    firsts,
    stops,
    lr_high,
    lr_low,
    pair_high,
    pair_low,
    scale,
    TARGET_ALIGNMENT: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``params = round(params + lr * delta)`` over one tile, rounded once.

    Every step is in float64, or with PAIRS in pairs of float32 (`pair_sums.py`).

    Args:
        params: [P], float32 or float64.
        delta: [P], that or 16 bits wide.
        starts, firsts, stops: [T], the tile table of the chosen layers, seen from `delta`.
        lr_high, lr_low, pair_high, pair_low, scale: see `weighted.words_of`.
        TARGET_ALIGNMENT: `params` lies on a multiple of this many bytes wherever `delta` lies on one of 16.
        PAIRS: whether to compute in pairs of float32; not for float64.
        BLOCK: elements per step.
    """
    tile = tl.program_id(0).to(tl.int64)
    start = tl.load(starts + tile)
    first = tl.load(firsts + tile).to(tl.int32)
    stop = tl.load(stops + tile).to(tl.int32)
    lr = (lr_high, lr_low, pair_high, pair_low)
    target = tl.multiple_of(params + start, TARGET_ALIGNMENT)
    change = tl.multiple_of(delta + start, 16)  # the table starts tiles on 16 bytes
    if (first == 0) & (stop % BLOCK == 0):
        all_lanes = tl.full((), BLOCK, tl.int32)
        for at in range(0, stop, BLOCK):
            add_weighted(target + at, change + at, change, 0, all_lanes, lr, scale, False, PAIRS, BLOCK, True)
    else:
        for at in range(0, stop, BLOCK):
            # fmt: off
            add_weighted(target + at, change + at, change, first - at, stop - at, lr, scale,
                         False, PAIRS, BLOCK, False)
            # fmt: on


def masked_apply(params: Tensor, delta: Tensor, layers: Layers, lr: float) -> None:
    """Launches `masked_apply_kernel` over the chosen layers, counted from the first element of `delta`."""
    if not len(layers.lengths):
        return
    # Seen from the narrower vector: an index on a 16-byte boundary there can be on one in the wider vector,
    # too.
    table = tiles_of(layers, delta)
    words, pairs = words_of(lr, params)
    if table.count:
        masked_apply_kernel[(table.count,)](
            params,
            delta,
            table.starts,
            table.firsts,
            table.stops,
            *words,
            TARGET_ALIGNMENT=ALIGNMENT if in_step(params, delta) else params.element_size(),
            PAIRS=pairs,
            BLOCK=BLOCK_BYTES // params.element_size(),
            num_warps=warps_of(THREADS, params.device),
            enable_fp_fusion=False,  # bit equality with the reference, as in accumulate.py
        )
