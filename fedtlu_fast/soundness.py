"""Checks that numbers are finite, and small enough that their sums and squares stay finite.

A client whose parameters or statistics go beyond `LARGEST` is refused, as if it had sent NaN or Inf. The
other clients cannot overflow float32 on the way to an average: a change is below 2^61, its square below
2^122, and a sum of changes weighted by sample counts stays below 2^127 up to 2^66 samples. So sums need no
scaling, and keep their bits.
"""

from __future__ import annotations

from torch import Tensor

LARGEST = 2.0**60
"""About 1.15e18."""


def sound(vector: Tensor) -> bool:
    """Whether all numbers of a tensor lie between -`LARGEST` and `LARGEST`; the tensor may be empty."""
    if not vector.numel():
        return True
    least, most = vector.aminmax()  # NaN makes both NaN
    return bool((least > -LARGEST) & (most < LARGEST))


def sound_rows(matrix: Tensor) -> list[bool]:
    """`sound` of every row of a matrix [K, P]."""
    if not matrix.shape[1]:
        return [True] * len(matrix)
    least, most = matrix.aminmax(dim=1)
    found: list[bool] = ((least > -LARGEST) & (most < LARGEST)).tolist()
    return found
