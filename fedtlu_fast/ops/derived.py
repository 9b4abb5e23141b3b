"""Statistics and scores that follow from moments: in C++ if the backend `native` is live, else in torch.

Both compute every number with the same operations in the same order, so they give the same bits.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.ops.backends import reader
from fedtlu_fast.ops.moments import Moments


def spread(moments: Moments) -> Tensor:
    """Computes the population std and the L2 norm of every layer from its moments.

    Returns:
        [2, L], or [2, K, L] for the moments of K clients, float64, on their device.
    """
    if (module := reader("auto", moments.rows)) is not None:
        try:
            return module.spread(moments)  # type: ignore[no-any-return]
        except module.NotPlainError:
            pass
    count, mean, m2, *_ = moments.rows
    return root(torch.stack([m2 / count.clamp(min=1), m2 + count * mean.square()]))


def score(count: Tensor, mean: Tensor, std: Tensor, nonfinite: Tensor, ddof: int) -> tuple[Tensor, Tensor]:
    """Computes Eq. 1 of FedTLU (arXiv 2412.17692); `scoring.scores` explains it.

    Args:
        count, mean, std, nonfinite: statistics of layers, float64 tensors of one shape on the CPU.
        ddof: 0 or 1.

    Returns:
        [2, ...] float64: the scores, and the excesses (mean/std)^2; and which layers are degenerate, whose
        excess is 0.
    """
    if (module := reader("auto", count)) is not None:
        try:
            return module.score(count, mean, std, nonfinite, ddof)  # type: ignore[no-any-return]
        except module.NotPlainError:
            pass
    excess = (mean / std).square()
    regular = (count >= 2) & (nonfinite == 0) & (std > 0) & torch.isfinite(std) & torch.isfinite(excess)
    excess = torch.where(regular, excess, 0.0)
    share = (count - ddof).clamp(min=0) / count.clamp(min=1)
    return torch.stack([root(share * (1 + excess)), excess]), ~regular


def root(values: Tensor) -> Tensor:
    """Returns the square roots, each the float64 next to the exact one.

    On a CPU those of torch's own builds may be the second next.
    """
    if not values.is_cpu:
        return torch.sqrt(values)
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(np.sqrt(values.numpy()))
