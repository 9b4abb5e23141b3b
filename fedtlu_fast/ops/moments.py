"""Defines the result of `layer_stats`, which is the same for every backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Moments:
    """Holds the moments of layers as rows of one float64 tensor on the device of the input.

    Each property is one row: a vector [L] for one change, a matrix [K, L] for K clients. A layer that holds
    NaN or Inf has NaN in `mean`, `m2` and `abs_max`. An empty layer has zeros.

    Attributes:
        rows: [5, L] or [5, K, L], in the order of `NAMES`.
    """

    NAMES: ClassVar[tuple[str, ...]] = ("count", "mean", "m2", "abs_max", "nonfinite")

    rows: Tensor

    @property
    def count(self) -> Tensor:
        """Returns the number of elements."""
        return self.rows[0]

    @property
    def mean(self) -> Tensor:
        """Returns the mean of the elements."""
        return self.rows[1]

    @property
    def m2(self) -> Tensor:
        """Returns the sum of squared deviations from the mean; exactly 0 for a constant layer."""
        return self.rows[2]

    @property
    def abs_max(self) -> Tensor:
        """Returns the largest magnitude."""
        return self.rows[3]

    @property
    def nonfinite(self) -> Tensor:
        """Returns the number of elements that are NaN or Inf."""
        return self.rows[4]


def squared_norms(moments: Moments) -> Tensor:
    """Returns the layers' squared L2 norms, of the shape of the moments; NaN where one is not finite."""
    found = moments.m2 + moments.count * moments.mean.square()
    return torch.where(found.isfinite(), found, torch.nan)
