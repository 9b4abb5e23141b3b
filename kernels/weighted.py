"""Adds a weighted change to numbers in memory, in float64 or in pairs of float32; rounded once."""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl
from torch import Tensor

from fedtlu_fast.kernels.numbers import double, double_words, widen
from fedtlu_fast.kernels.pair_sums import (
    add_product,
    power_of_two,
    scale_of,
    settle,
    split,
    two_difference,
)
from fedtlu_fast.kernels.pairs import use_pairs
from fedtlu_fast.kernels.single_step import read, write


def words_of(weight: float, target: Tensor) -> tuple[tuple[int, ...], bool]:
    """Returns the kernels' arguments for a weight, and whether they are for pairs.

    The arguments are, in order:
        weight_high, weight_low: see `numbers.double`.
        pair_high, pair_low, scale: the weight as two float32, by their bits, and its scale; read with PAIRS.
    """
    one = np.array([weight], dtype=np.float64)
    scale = scale_of(one) if use_pairs(target.dtype, target.device) else None
    if scale is None:
        return (*double_words(weight), 0, 0, 0), False
    high, low = split(one, scale).view(np.int32)[0].tolist()
    return (*double_words(weight), high, low, scale), True


@triton.jit
def _added(
    target,
    source,
    base,
    first,
    stop,
    weight,
    HAS_BASE: tl.constexpr,
    BLOCK: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Returns the new numbers of a tile, computed in float64."""
    total = read(target, first, stop, BLOCK, WHOLE)
    change = widen(read(source, first, stop, BLOCK, WHOLE)).to(tl.float64)
    if HAS_BASE:
        change -= widen(read(base, first, stop, BLOCK, WHOLE)).to(tl.float64)
    return (total.to(tl.float64) + weight * change).to(total.dtype)


@triton.jit
def add_weighted(
    target,
    source,
    base,
    first,
    stop,
    words,
    scale,
    HAS_BASE: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Stores ``target + weight * (source - base)`` in lanes ``first .. stop - 1`` of a tile, and returns it.

    Args:
        target: the tile's address in the vector that is changed.
        source, base: its addresses in the others; `base` is not read without HAS_BASE.
        first, stop: the lanes that are changed.
        words, scale: what `words_of` returns, first the four words.
        HAS_BASE: whether there is a base.
        PAIRS: whether to compute in pairs of float32 (`pair_sums.py`); a tile that they cannot hold is
            computed anew in float64.
        BLOCK: lanes.
        WHOLE: whether all lanes are changed.
    """
    weight = double(words[0], words[1])
    if PAIRS:
        high, low = words[2].to(tl.float32, bitcast=True), words[3].to(tl.float32, bitcast=True)
        total = read(target, first, stop, BLOCK, WHOLE) * power_of_two(scale)
        change = widen(read(source, first, stop, BLOCK, WHOLE))
        change_low = change
        if HAS_BASE:
            change, change_low = two_difference(change, widen(read(base, first, stop, BLOCK, WHOLE)))
        total, total_low = add_product(total, tl.zeros_like(total), change, change_low, high, low, HAS_BASE)
        rounded, right = settle(total, total_low, scale)
        if not right:
            rounded = _added(target, source, base, first, stop, weight, HAS_BASE, BLOCK, WHOLE)
    else:
        rounded = _added(target, source, base, first, stop, weight, HAS_BASE, BLOCK, WHOLE)
    write(target, rounded, first, stop, BLOCK, WHOLE)
    return rounded
