"""Clients' weighted changes as whole numbers modulo 2^bits, whose sum over the clients cannot wrap.

Masks hide a number only in a finite group, where every sum with a uniform mask is uniform. So a client that
weighs n and changes the model by d sends

    round(S n/W clip(d, R)/R)  for every number of d,  and  round(S n/W)

with the largest change R, the largest weight W, a power of two, and the scale S, the largest power of two
with ``clients S < 2^(bits - 1)``. The two sums give the weighted mean. Every number of a client is off by
half a step of ``W R / (n S)`` at most (the encoding is ours). Where the step is given, S follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.errors import InputError

Bits = Literal[32, 64]
Ring = NDArray[np.unsignedinteger[Any]]
"""Whole numbers modulo 2^32 or 2^64, as uint32 or uint64."""
LEAST_SCALE = 2**8
"""The scale has to be this many times W, so that a client of weight 1 has steps of R / 256 or finer."""


@dataclass(frozen=True)
class FixedPoint:
    """The encoding that all clients of a round share.

    Attributes:
        clients: the largest number of vectors in a sum.
        bits: the ring has 2^bits elements.
        largest_change: R; larger numbers of a change are cut to it.
        largest_weight: no client weighs more. W is the next power of two, so that whole weights are exact.
        toward_zero: whether numbers are rounded toward zero and not to the nearest step, so that no change
            becomes longer than it was. A number is then off by a whole step at most.
        given_step: the step of a change that weighs 1, a power of two; None: the finest that fits. R is then
            the next power of two, so that S is one, and W is 1.
    """

    clients: int
    bits: Bits = 64
    largest_change: float = 16.0
    largest_weight: int = 2**20
    toward_zero: bool = False
    given_step: float | None = None

    def __post_init__(self) -> None:
        if self.scale > self.finest:
            room = self.reach * self.finest / self.scale
            more = "64, or " if self.bits < max(get_args(Bits)) else ""
            expected = (
                f"{more}a smaller largest_change than {self.largest_change:g}, or larger steps: numbers up "
                f"to {room:.3g} fit in steps of {self.given_step:.2g}"
            )
            raise InputError("bits", self.bits, expected)
        if self.scale < LEAST_SCALE * self.unit:
            most = 2 ** (self.bits - 1) // (LEAST_SCALE * self.unit) - 1
            expected = (
                f"more bits, or a smaller largest_weight than {self.largest_weight}: with both a sum of "
                f"{max(most, 0)} clients fits, and not one of {self.clients}"
            )
            raise InputError("bits", self.bits, expected)

    @property
    def unit(self) -> int:
        """Returns W, the power of two that stands for a share of 1."""
        return 1 << (self.largest_weight - 1).bit_length() if self.given_step is None else 1

    @property
    def reach(self) -> float:
        """Returns R."""
        if self.given_step is None:
            return self.largest_change
        return self.given_step * 2.0 ** ceil(log2(max(LEAST_SCALE, self.largest_change / self.given_step)))

    @property
    def scale(self) -> int:
        """Returns S; 0 if no scale fits."""
        return self.finest if self.given_step is None else int(self.reach / self.given_step)

    @property
    def finest(self) -> int:
        """Returns the largest S with which a sum does not wrap."""
        return (1 << (((1 << (self.bits - 1)) - 1) // self.clients).bit_length()) >> 1

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Returns the dtype of the ring, little-endian on every machine."""
        return np.dtype(f"<u{self.bits // 8}")

    def step(self, weight: float) -> float:
        """Returns the distance of neighbouring values of a change that weighs this much."""
        return self.reach * self.unit / (weight * self.scale)

    def encode(self, change: NDArray[np.floating[Any]], weight: float) -> Ring:
        """Returns [N + 1], a client's weighted change and its weight.

        Args:
            change: [N], finite numbers.
            weight: from 0 to the largest weight.

        Raises:
            InputError: the weight is larger.
        """
        if not 0 <= weight <= self.largest_weight:
            fix = "Raise it; it has to be known before the round, and may say something about the clients."
            raise InputError("largest_weight", self.largest_weight, f"at least the weight {weight:g}", fix)
        found = np.empty(len(change) + 1, np.float64)
        found[:-1] = change  # in float64 before it is cut, since float32 may not have R
        np.clip(found[:-1], -self.reach, self.reach, out=found[:-1])
        found[:-1] *= weight / self.unit * self.scale / self.reach
        found[-1] = weight / self.unit * self.scale
        whole = np.trunc if self.toward_zero else np.rint
        return whole(found, out=found).astype(f"<i{self.bits // 8}").view(self.dtype)

    def decode(self, total: Ring) -> tuple[NDArray[np.float64], float]:
        """Returns the sum [N] of the weighted changes, and the sum of the weights.

        Args:
            total: [N + 1], the sum of encoded changes modulo 2^bits.
        """
        found = total.view(f"<i{self.bits // 8}").astype(np.float64)
        found *= self.unit / self.scale
        return found[:-1] * self.reach, float(found[-1])
