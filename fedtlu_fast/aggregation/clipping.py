"""Norm clipping: each client's change is scaled down to a largest L2 norm before it is averaged.

``dW = sum_k n_k d_k / max(1, ||d_k|| / clip) / sum_k n_k`` with d_k = w_k - w (Sun et al., "Can You Really
Backdoor Federated Learning?", arXiv 1911.07963). If `clip` is a number, clients are added one at a time in
O(P) memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.aggregation.fedavg import WeightedMean
from fedtlu_fast.aggregation.rule import Aggregated, AggregationRule, Start
from fedtlu_fast.aggregation.share import MaxShare, check_share
from fedtlu_fast.aggregation.stack import Spill, Stack
from fedtlu_fast.ops import dispatch
from fedtlu_fast.parts import part


@part
class NormClip(AggregationRule):
    """The weighted mean of changes that are scaled down to a largest L2 norm.

    The median of the norms counts every client once; the median of an even number of norms is the mean of the
    two middle ones.

    Attributes:
        clip: largest L2 norm of a client's change; null: the median of the round's norms, for which the
            vectors of the cohort are kept.
        max_share: largest share of one client in the sum of a round's weights, at least 1 / cohort; larger
            weights are cut (see `largest_weight`); null: no limit.
        spill: directory for the cohort's vectors; null: in memory.
    """

    clip: Annotated[float | None, Field(gt=0)] = None
    max_share: MaxShare = None
    spill: Spill = None
    averages = True

    @property
    def keeps_vectors(self) -> bool:
        """See `AggregationRule`. If `clip` is a number, two vectors are enough."""
        return self.clip is None

    @override
    @property
    def spill_directory(self) -> str | None:
        return self.spill

    @override
    def check(self, cohort: int) -> None:
        check_share(self.max_share, cohort)

    def start(self, start: Start) -> Clipped:
        """Returns an empty mean, with room for the cohort if the vectors are kept."""
        stack = Stack(start.base, start.cohort, self.spill) if self.clip is None else None
        mean = WeightedMean(start.base, start.backend)
        return Clipped(mean, ChangeNorm(start.base, start.backend), stack, [], [])

    def add(self, state: Clipped, client: int, weight: float, vector: Tensor) -> Clipped:
        """Adds the clipped change, or keeps the vector until the median of the norms is known."""
        norm = state.norm(vector)
        if state.stack is None or self.clip is not None:
            state.mean.add_(vector, weight, clipping(norm, self.clip or 0.0))
            return state
        state.stack.add_(vector)
        state.norms.append(norm)
        state.weights.append(weight)
        return state

    def finish(self, state: Clipped) -> Aggregated:
        """Returns the mean of the clipped changes; zeros if no client arrived."""
        if state.stack is not None and state.norms:
            clip = float(np.median(state.norms))
            for place, (norm, weight) in enumerate(zip(state.norms, state.weights, strict=True)):
                state.mean.add_(state.stack.row(place), weight, clipping(norm, clip))
        return Aggregated(state.mean.change())


@dataclass(frozen=True)
class Clipped:
    """The state of `NormClip` during a round.

    Attributes:
        mean: the mean of the clipped changes so far.
        norm: computes the norm of a client's change.
        stack: the vectors that wait for the median of the norms; None if `clip` is a number.
        norms: norms of the waiting changes.
        weights: weights of the waiting clients.
    """

    mean: WeightedMean
    norm: ChangeNorm
    stack: Stack | None
    norms: list[float]
    weights: list[float]


class ChangeNorm:
    """Computes the L2 norm of a client's change in one pass of `aggregate`."""

    def __init__(self, base: Tensor, backend: str = "auto") -> None:
        """Allocates one vector.

        Args:
            base: [P], the parameters with which the clients start.
            backend: the backend that runs the kernels.
        """
        self.base, self.backend = base, backend
        self._scratch = torch.empty_like(base)
        self._whole = torch.tensor([0, len(base)])

    def __call__(self, client: Tensor) -> float:
        """Returns the L2 norm of ``client - base``, summed in float64; finite for every finite client."""
        # Half the change, because the difference of two float32 numbers may overflow.
        _, half, _ = dispatch.aggregate(
            [client], [0.5], self._whole, base=self.base, out=self._scratch, backend=self.backend
        )
        return 2 * sqrt(float(half.m2[0]) + len(self.base) * float(half.mean[0]) ** 2)


def clipping(norm: float, clip: float) -> float:
    """Returns the factor, at most 1, that scales a change of this norm down to the norm `clip`."""
    return 1.0 if norm <= clip else clip / norm
