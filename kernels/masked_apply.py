"""Computes ``params[layer] += lr * delta[layer]`` for the chosen layers in one launch over their tiles."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fedtlu_fast.kernels.device import warps_of
from fedtlu_fast.kernels.numbers import double, double_words, widen
from fedtlu_fast.kernels.tiles import ALIGNMENT, Layers, in_step, tiles_of

# Chosen for Hopper by reasoning, not yet measured: four (float32) 16-byte loads per thread from each array.
THREADS = 128
BLOCK_BYTES = 8192


@triton.jit
def _apply(target, change, first, stop, lr, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    for base in range(0, stop, BLOCK):
        lanes = base + tl.arange(0, BLOCK)  # [BLOCK]
        if WHOLE:  # a mask would split the 16-byte loads
            x = tl.load(target + lanes)
            y = tl.load(change + lanes)
            tl.store(target + lanes, (x.to(tl.float64) + lr * widen(y).to(tl.float64)).to(x.dtype))
        else:
            inside = (lanes >= first) & (lanes < stop)
            x = tl.load(target + lanes, inside, other=0.0)
            y = tl.load(change + lanes, inside, other=0.0)
            tl.store(target + lanes, (x.to(tl.float64) + lr * widen(y).to(tl.float64)).to(x.dtype), inside)


@triton.jit(do_not_specialize=["lr_high", "lr_low"])
def masked_apply_kernel(
    params,
    delta,
    starts,
    firsts,
    stops,
    lr_high,
    lr_low,
    TARGET_ALIGNMENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``params = round(params + lr * delta)`` over one tile, every step in float64, rounded once.

    Args:
        params: [P], float32 or float64.
        delta: [P], that or 16 bits wide.
        starts, firsts, stops: [T], the tile table of the chosen layers, seen from `delta`.
        lr_high, lr_low: see `numbers.double`.
        TARGET_ALIGNMENT: `params` lies on a multiple of this many bytes wherever `delta` lies on one of 16.
        BLOCK: elements per step.
    """
    tile = tl.program_id(0).to(tl.int64)
    start = tl.load(starts + tile)
    first = tl.load(firsts + tile).to(tl.int32)
    stop = tl.load(stops + tile).to(tl.int32)
    lr = double(lr_high, lr_low)
    target = tl.multiple_of(params + start, TARGET_ALIGNMENT)
    change = tl.multiple_of(delta + start, 16)  # the table starts tiles on 16 bytes
    if (first == 0) & (stop % BLOCK == 0):
        _apply(target, change, first, stop, lr, BLOCK, True)
    else:
        _apply(target, change, first, stop, lr, BLOCK, False)


def masked_apply(params: Tensor, delta: Tensor, layers: Layers, lr: float) -> None:
    """Launches `masked_apply_kernel` over the chosen layers, counted from the first element of `delta`."""
    if not len(layers.lengths):
        return
    # Seen from the narrower vector: an index on a 16-byte boundary there can be on one in the wider vector,
    # too.
    table = tiles_of(layers, delta)
    if table.count:
        masked_apply_kernel[(table.count,)](
            params,
            delta,
            table.starts,
            table.firsts,
            table.stops,
            *double_words(lr),
            TARGET_ALIGNMENT=ALIGNMENT if in_step(params, delta) else params.element_size(),
            BLOCK=BLOCK_BYTES // delta.element_size(),
            num_warps=warps_of(THREADS, params.device),
            enable_fp_fusion=False,  # bit equality with the reference, as in accumulate.py
        )
