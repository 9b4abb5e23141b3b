"""``aggregate += weight * (client - base)`` in one launch."""

from __future__ import annotations

import struct

import triton
import triton.language as tl
from torch import Tensor

# Chosen for Hopper by reasoning, not yet measured: two (float32) or four (float64) 16-byte loads a
# thread from each of three arrays.
NUM_WARPS = 4
BLOCK = 1024


def double_words(value: float) -> tuple[int, int]:
    """The high and low 32 bits of a float64; `double` puts them together again.

    Triton passes a Python float as float32, which would round a client's weight.
    """
    high, low = struct.unpack("<2i", struct.pack("<d", value))[::-1]
    return high, low


@triton.jit
def double(high, low):
    """The float64 of these two halves."""
    bits = (high.to(tl.int64) << 32) | (low.to(tl.int64) & 0xFFFFFFFF)
    return bits.to(tl.float64, bitcast=True)


@triton.jit
def _accumulate(aggregate, client, base, at, inside, weight, HAS_BASE: tl.constexpr, WHOLE: tl.constexpr):
    if WHOLE:  # a mask would split the 16-byte loads
        total = tl.load(aggregate + at)
        change = tl.load(client + at).to(tl.float64)
        if HAS_BASE:
            change -= tl.load(base + at).to(tl.float64)
        tl.store(aggregate + at, (total.to(tl.float64) + weight * change).to(total.dtype))
    else:
        total = tl.load(aggregate + at, inside, other=0.0)
        change = tl.load(client + at, inside, other=0.0).to(tl.float64)
        if HAS_BASE:
            change -= tl.load(base + at, inside, other=0.0).to(tl.float64)
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
        aggregate, client, base: [P]; `base` is not read without HAS_BASE.
        size: P.
        weight_high, weight_low: see `double`.
        HAS_BASE, BLOCK: whether there is a base; elements a program.
    """
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    at = begin + tl.arange(0, BLOCK)  # [BLOCK]
    weight = double(weight_high, weight_low)
    if begin + BLOCK <= size:
        _accumulate(aggregate, client, base, at, at < size, weight, HAS_BASE, True)
    else:
        _accumulate(aggregate, client, base, at, at < size, weight, HAS_BASE, False)


def accumulate(aggregate: Tensor, client: Tensor, base: Tensor | None, weight: float) -> None:
    """Launch `accumulate_kernel` over flat contiguous vectors of one dtype and device."""
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
