"""Passes over a stack of vectors: weighted sums and distances, without a second copy of the stack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.aggregation.stack import Stack
from fedtlu_fast.ops import dispatch, stacks

Numbers = NDArray[np.float64]


def weighted_sum(stack: Stack, weights: Sequence[float] | Numbers, backend: str) -> Tensor:
    """Computes ``sum_k weights[k] (w_k - w)`` in one pass; zeros if all weights are 0.

    Args:
        stack: K vectors w_k, and the base w.
        weights: K numbers; vectors of weight 0 are not read.
        backend: the backend that runs the kernels.

    Returns:
        [P] float32, summed in float64 in the order of the stack and rounded once.
    """
    places = [place for place, weight in enumerate(weights) if weight]
    change = torch.zeros_like(stack.base)
    if places:
        shares = [float(weights[place]) for place in places]
        nothing = torch.zeros(1, dtype=torch.int64)  # no layers: no statistics
        for columns, rows in stack.blocks(places):
            base, out = stack.base[columns], change[columns]
            dispatch.aggregate(rows, shares, nothing, base=base, out=out, backend=backend)
    return change


def distances_to(stack: Stack, centre: Tensor | None, backend: str) -> Numbers:
    """Computes the L2 norm of ``w_k - w - centre`` for every vector, in float64.

    Args:
        stack: K vectors w_k, at least one, and the base w.
        centre: [P] float32, a change; None for zeros.
        backend: the backend that runs the kernels.

    Returns:
        [K]; finite for finite vectors.
    """
    squares = torch.zeros(len(stack), dtype=torch.float64)
    for columns, rows in stack.blocks():
        middle = None if centre is None else centre[columns]
        squares += stacks.squared_distances_from(rows, stack.base[columns], middle, backend)
    found: Numbers = squares.sqrt().numpy()
    return found
