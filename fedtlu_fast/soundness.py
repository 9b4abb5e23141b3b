"""Checks that numbers are finite, and small enough that their sums and squares stay finite.

A client whose parameters or statistics exceed `LARGEST` is refused, as if it had sent NaN or Inf. The changes
of other clients cannot overflow float32 during averaging: a change is below 2^61, its square below 2^122, and
a sum of changes weighted by sample counts stays below 2^127 for up to 2^66 samples. So sums need no scaling
and keep their bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 2.0**60
"""The largest magnitude that is accepted, about 1.15e18."""


def sound(vector: Tensor) -> bool:
    """Tells whether all numbers of a tensor lie between -`LARGEST` and `LARGEST`; it may be empty."""
    if not vector.numel():
        return True
    # A sum of squares is not below any of them: a small norm is a proof, in a quarter of the time.
    if torch.linalg.vector_norm(vector).item() < LARGEST / 2:
        return True
    least, most = vector.aminmax()  # NaN makes both NaN
    return bool(least.item() > -LARGEST and most.item() < LARGEST)


def sound_rows(matrix: Tensor) -> list[bool]:
    """Applies `sound` to every row of a matrix [K, P]."""
    if not matrix.shape[1]:
        return [True] * len(matrix)
    least, most = matrix.aminmax(dim=1)
    found: list[bool] = ((least > -LARGEST) & (most < LARGEST)).tolist()
    return found
