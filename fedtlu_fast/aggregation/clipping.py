"""Norm clipping: each client's change is scaled down to a largest L2 norm before it is averaged.

``dW = sum_k n_k d_k / max(1, ||d_k|| / clip) / sum_k n_k`` with d_k = w_k - w (Sun et al., "Can You Really
Backdoor Federated Learning?", arXiv 1911.07963). If `clip` is a number, clients are added one at a time in
O(P) memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.aggregation.fedavg import WeightedMean
from fedtlu_fast.aggregation.passes import distances_to, weighted_sum
from fedtlu_fast.aggregation.rule import Aggregated, AggregationRule, Start
from fedtlu_fast.aggregation.share import MaxShare, check_share
from fedtlu_fast.aggregation.stack import Spill, Stack
from fedtlu_fast.ops.stacks import squared_distances_from
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
        """Returns an empty mean, or room for the cohort if the vectors are kept."""
        if self.clip is None:
            return Clipped(start, stack=Stack(start.base, start.cohort, self.spill))
        return Clipped(start, mean=WeightedMean(start.base, start.backend))

    def add(self, state: Clipped, client: int, weight: float, vector: Tensor) -> Clipped:
        """Adds the clipped change, or keeps the vector until the median of the norms is known."""
        if state.stack is not None:
            state.stack.add_(vector)
            state.weights.append(weight)
        if state.mean is not None and self.clip is not None:
            norm = change_norm(state.start.base, vector, state.start.backend)
            state.mean.add_(vector, weight, clipping(norm, self.clip))
        return state

    def finish(self, state: Clipped) -> Aggregated:
        """Returns the mean of the clipped changes; zeros if no client arrived."""
        if state.mean is not None:
            return Aggregated(state.mean.change())
        if state.stack is None or not len(state.stack):
            return Aggregated(torch.zeros_like(state.start.base))
        norms = distances_to(state.stack, None, state.start.backend)
        clip, total = float(np.median(norms)), sum(state.weights) or 1
        shares = [
            weight * clipping(norm, clip) / total
            for norm, weight in zip(norms.tolist(), state.weights, strict=True)
        ]
        return Aggregated(weighted_sum(state.stack, shares, state.start.backend))


@dataclass(frozen=True)
class Clipped:
    """The state of `NormClip` during a round.

    Attributes:
        start: the facts with which the round began.
        mean: the mean of the clipped changes so far; None if `clip` is the median of the norms.
        stack: the vectors that wait for the median of the norms; None if `clip` is a number.
        weights: weights of the waiting clients.
    """

    start: Start
    mean: WeightedMean | None = None
    stack: Stack | None = None
    weights: list[float] = field(default_factory=list)


def change_norm(base: Tensor, client: Tensor, backend: str = "auto") -> float:
    """Returns the L2 norm of ``client - base``, vectors [P], in float64; finite for every finite client."""
    return sqrt(float(squared_distances_from([client], base, backend=backend)))


def clipping(norm: float, clip: float) -> float:
    """Returns the factor, at most 1, that scales a change of this norm down to the norm `clip`."""
    return 1.0 if norm <= clip else clip / norm
