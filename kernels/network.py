"""Sorts the rows of a tile, column by column, in registers: the functions that `columns` and `runs` share.

A number is sorted as an integer of the same order (`key_of`), whose smaller and larger are exact and blind
to NaN. The network is bitonic (Batcher, "Sorting networks and their applications", 1968), in the form that
always puts the smaller value into the earlier row: rows of the largest key at the end of a tile stay where
they are, and what the compiler knows to be such a row costs nothing.

A thread holds whole columns, so that an exchange is one minimum and one maximum of its own registers. Triton
lays a tile [ROWS, BLOCK] out so as long as BLOCK is a multiple of its threads.
"""

from __future__ import annotations

import triton
import triton.language as tl

LEAST_KEY = tl.constexpr(-(2**31))
LARGEST_KEY = tl.constexpr(2**31 - 1)
"""No number has these keys; NaN has the largest one that a number has."""


@triton.jit
def key_of(x):
    """Returns int32 of the order of float32 numbers; -0 comes before +0, and NaN of either sign last."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(x != x, 0x7FC00000, bits ^ ((bits >> 31) & 0x7FFFFFFF))


@triton.jit
def number_of(key):
    """Returns the number of a key in float64."""
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True).to(tl.float64)


@triton.jit
def _reversed(x, axis: tl.constexpr):
    """Returns a tile whose axis of two is reversed; on registers, the compiler makes it their renaming."""
    return tl.min(x, axis, keep_dims=True) + tl.max(x, axis, keep_dims=True) - x


@triton.jit
def _exchange(x, axis: tl.constexpr, LOG: tl.constexpr):
    upper = tl.reshape(tl.arange(0, 2), [1] * axis + [2] + [1] * (LOG - axis)) == 0
    return tl.where(upper, tl.min(x, axis, keep_dims=True), tl.max(x, axis, keep_dims=True))


@triton.jit
def _exchange_mirrored(x, axis: tl.constexpr, LOG: tl.constexpr):
    """Exchanges rows that mirror each other, of every block of rows that this axis halves."""
    upper = tl.reshape(tl.arange(0, 2), [1] * axis + [2] + [1] * (LOG - axis)) == 0
    mirrored = x
    for inner in tl.static_range(axis, LOG):
        mirrored = _reversed(mirrored, inner)
    return tl.where(upper, tl.minimum(x, mirrored), tl.maximum(x, mirrored))


@triton.jit
def cube(keys, LOG: tl.constexpr):
    """Returns a tile [2^LOG, BLOCK] as [2, ..., 2, BLOCK]."""
    return tl.reshape(keys, [2] * LOG + [keys.shape[1]])


@triton.jit
def tile(keys, LOG: tl.constexpr):
    """Returns what `cube` made as a tile again."""
    return tl.reshape(keys, [1 << LOG, keys.shape[LOG]])


@triton.jit
def clean(x, LAYERS: tl.constexpr, LOG: tl.constexpr):
    """Exchanges rows at the distances 2^(LAYERS - 1), ..., 2, 1."""
    for axis in tl.static_range(LOG - LAYERS, LOG):
        x = _exchange(x, axis, LOG)
    return x


@triton.jit
def merge(x, LAYERS: tl.constexpr, LOG: tl.constexpr):
    """Merges the sorted halves of every 2^LAYERS rows: first rows that mirror each other are exchanged."""
    return clean(_exchange_mirrored(x, LOG - LAYERS, LOG), LAYERS - 1, LOG)


@triton.jit
def sort(keys, LOG: tl.constexpr):
    """Sorts the columns of a tile [2^LOG, BLOCK]."""
    x = cube(keys, LOG)
    for layers in tl.static_range(1, LOG + 1):
        x = merge(x, layers, LOG)
    return tile(x, LOG)
