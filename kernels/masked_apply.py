"""``params[layer] += lr * delta[layer]`` for the chosen layers in one launch over their tiles."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fedtlu_fast.kernels.accumulate import double, double_words
from fedtlu_fast.kernels.tiles import ALIGNMENT, Layers, tiles_of

# Chosen for Hopper by reasoning, not yet measured: four (float32) 16-byte loads a thread from each array.
NUM_WARPS = 4
BLOCK_BYTES = 8192


@triton.jit
def _apply(target, change, first, stop, lr, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    for base in range(0, stop, BLOCK):
        lanes = base + tl.arange(0, BLOCK)  # [BLOCK]
        if WHOLE:  # a mask would split the 16-byte loads
            x = tl.load(target + lanes)
            y = tl.load(change + lanes)
            tl.store(target + lanes, (x.to(tl.float64) + lr * y.to(tl.float64)).to(x.dtype))
        else:
            inside = (lanes >= first) & (lanes < stop)
            x = tl.load(target + lanes, inside, other=0.0)
            y = tl.load(change + lanes, inside, other=0.0)
            tl.store(target + lanes, (x.to(tl.float64) + lr * y.to(tl.float64)).to(x.dtype), inside)


@triton.jit(do_not_specialize=["lr_high", "lr_low"])
def masked_apply_kernel(
    params,
    delta,
    starts,
    firsts,
    stops,
    lr_high,
    lr_low,
    CHANGE_ALIGNMENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``params = round(params + lr * delta)`` over one tile, every step in float64, rounded once.

    Args:
        params, delta: [P].
        starts, firsts, stops: [T], the tile table of the chosen layers, seen from `params`.
        lr_high, lr_low: see `accumulate.double`.
        CHANGE_ALIGNMENT: bytes on whose multiple `delta` lies where `params` lies on 16.
        BLOCK: elements a step.
    """
    tile = tl.program_id(0).to(tl.int64)
    start = tl.load(starts + tile)
    first = tl.load(firsts + tile).to(tl.int32)
    stop = tl.load(stops + tile).to(tl.int32)
    lr = double(lr_high, lr_low)
    target = tl.multiple_of(params + start, 16)  # the table starts tiles on 16 bytes
    change = tl.multiple_of(delta + start, CHANGE_ALIGNMENT)
    if (first == 0) & (stop % BLOCK == 0):
        _apply(target, change, first, stop, lr, BLOCK, True)
    else:
        _apply(target, change, first, stop, lr, BLOCK, False)


def masked_apply(params: Tensor, delta: Tensor, layers: Layers, lr: float) -> None:
    """Launch `masked_apply_kernel` over the chosen layers, counted from the first element of `params`."""
    if not len(layers.lengths):
        return
    table = tiles_of(layers, params)
    size = params.element_size()
    apart = (delta.data_ptr() - params.data_ptr()) % ALIGNMENT
    if table.count:
        masked_apply_kernel[(table.count,)](
            params,
            delta,
            table.starts,
            table.firsts,
            table.stops,
            *double_words(lr),
            CHANGE_ALIGNMENT=size if apart else ALIGNMENT,
            BLOCK=BLOCK_BYTES // size,
            num_warps=NUM_WARPS,
            enable_fp_fusion=False,  # bit equality with the reference, as in accumulate.py
        )
