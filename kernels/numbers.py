"""Passes numbers into a kernel and widens them inside it."""

from __future__ import annotations

import struct

import triton
import triton.language as tl


def double_words(value: float) -> tuple[int, int]:
    """Returns the high and low 32 bits of a float64; `double` puts them together again.

    Triton passes a Python float as float32, which would round a client's weight.
    """
    high, low = struct.unpack("<2i", struct.pack("<d", value))[::-1]
    return high, low


@triton.jit
def double(high, low):
    """Returns the float64 made of these two halves."""
    bits = (high.to(tl.int64) << 32) | (low.to(tl.int64) & 0xFFFFFFFF)
    return bits.to(tl.float64, bitcast=True)


@triton.jit
def widen(x):
    """Returns the same values as float32, or as float64 if they are stored as float64."""
    if x.dtype == tl.bfloat16:  # by hand, because the interpreter's conversion gets subnormal numbers wrong
        x = (x.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    elif x.dtype == tl.float16:
        x = x.to(tl.float32)
    return x


@triton.jit
def floats(word):
    """Returns the two float32 in a word of 64 bits, first the one in the low half."""
    low = word.to(tl.int32).to(tl.float32, bitcast=True)
    return low, (word >> 32).to(tl.int32).to(tl.float32, bitcast=True)
