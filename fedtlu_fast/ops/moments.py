"""Defines the result of `layer_stats`, which is the same for every backend."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Moments:
    """Holds the moments of layers in five float64 tensors on the device of the input.

    The tensors are vectors [L] for one change and matrices [K, L] for K clients. A layer that holds NaN or
    Inf has NaN in `mean`, `m2` and `abs_max`. An empty layer has zeros.

    Attributes:
        count: the number of elements.
        mean: the mean of the elements.
        m2: the sum of squared deviations from the mean; exactly 0 for a constant layer.
        abs_max: the largest magnitude.
        nonfinite: the number of elements that are NaN or Inf.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor
    abs_max: Tensor
    nonfinite: Tensor


def squared_norms(moments: Moments) -> Tensor:
    """Returns the layers' squared L2 norms, of the shape of the moments; NaN where one is not finite."""
    found = moments.m2 + moments.count * moments.mean.square()
    return torch.where(found.isfinite(), found, torch.nan)
