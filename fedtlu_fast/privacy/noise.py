"""Sources of Gaussian noise: a run's seed, for simulations, and the operating system, for real clients."""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHUNK = 2**20
"""Numbers that are drawn at a time."""


class NormalDraws(Protocol):
    """A source of standard normal numbers, such as `numpy.random.Generator`."""

    def standard_normal(self, size: int, dtype: Any = ...) -> NDArray[Any]:
        """Returns so many numbers."""
        ...


class SystemDraws:
    """Draws from the operating system's cryptographic source, which nobody can predict or repeat.

    The numbers are computed in float64 from 53 random bits each (Box-Muller) and rounded to float32.
    """

    def standard_normal(self, size: int, dtype: Any = np.float32) -> NDArray[Any]:
        """Returns standard normal numbers, [size]."""
        found = np.empty(size, dtype)
        for begin in range(0, size, CHUNK):
            count = min(CHUNK, size - begin)
            pairs = (count + 1) // 2
            bits = np.frombuffer(os.urandom(16 * pairs), np.uint64) >> np.uint64(11)
            radius = np.sqrt(-2 * np.log((bits[:pairs] + 1.0) * 2.0**-53))  # of a number above 0
            angle = 2 * np.pi * (bits[pairs:] * 2.0**-53)
            both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
            found[begin : begin + count] = both[:count]
        return found

    def integers(self, low: int, high: int, size: int) -> NDArray[np.int64]:
        """Returns whole numbers [size] from `low` to `high` - 1, each with exactly the same probability."""
        width = high - low
        most = 2**64 // width * width - 1  # larger words would favour some numbers, and are drawn again
        words = np.frombuffer(os.urandom(8 * size), np.uint64).copy()
        while len(again := np.flatnonzero(words > np.uint64(most))):
            words[again] = np.frombuffer(os.urandom(8 * len(again)), np.uint64)
        return (words % np.uint64(width)).astype(np.int64) + low


def normal(draws: NormalDraws, like: Tensor) -> Tensor:
    """Returns standard normal numbers [P] float32 on the device of `like`, [P]."""
    return torch.from_numpy(draws.standard_normal(like.numel(), dtype=np.float32)).to(like.device)
