"""The geometric median of the clients' vectors (RFA).

Source: Pillutla, Kakade, Harchaoui, "Robust Aggregation for Federated Learning", arXiv 1912.13445, with the
smoothed Weiszfeld algorithm. The clients' stack takes 4 K P bytes, in memory or in a file (`Stack`).
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.aggregation.passes import distances_to, weighted_sum
from fedtlu_fast.aggregation.rule import Aggregated, Arrived, StackedRule
from fedtlu_fast.aggregation.share import MaxShare, check_share
from fedtlu_fast.aggregation.stack import Spill
from fedtlu_fast.parts import part


@part
class GeometricMedian(StackedRule):
    """The point with the smallest weighted sum of distances to the clients' vectors (RFA).

    Every iteration takes the mean of the changes with the weights ``n_k / max(smoothing, ||d_k - v||)``,
    where v is the mean before it. The first v is no change at all, and the smallest distance that counts in
    the first iteration is the weighted median of the norms (ours; the paper leaves the start open): else a
    client that sends no change would have nearly all the weight. So already the first mean is bounded,
    however large the changes of a minority are: if clients of the share h > 1/2 of the weights have norms of
    at most R, no mean exceeds ``R ((1 + 1 / h)^iterations - 1)``, and the geometric median itself lies
    within ``2 h / (2 h - 1) R``.

    Attributes:
        iterations: number of iterations; each reads the cohort's vectors twice. The paper takes 3.
        smoothing: the smallest distance that counts, so that no weight is infinite.
        max_share: largest share of one client in the sum of a round's weights, at least 1 / cohort; larger
            weights are cut (see `largest_weight`); null: no limit. A client with half of the weights decides.
        spill: directory for the cohort's vectors; null: in memory.
    """

    iterations: Annotated[int, Field(ge=1)] = 3
    smoothing: Annotated[float, Field(ge=1e-30)] = 1e-6
    max_share: MaxShare = None
    spill: Spill = None

    @override
    def check(self, cohort: int) -> None:
        check_share(self.max_share, cohort)

    def finish(self, state: Arrived) -> Aggregated:
        """Returns the last mean; zeros if no client arrived, or all have weight 0."""
        stack, backend = state.stack, state.start.backend
        weights = np.array(state.weights)
        centre: Tensor | None = None
        if weights.any():
            for _ in range(self.iterations):
                distances = distances_to(stack, centre, backend)
                least = _middle(distances, weights) if centre is None else 0.0
                near = weights / np.maximum(max(self.smoothing, least), distances)
                centre = weighted_sum(stack, near / near.sum(), backend)
        return Aggregated(torch.zeros_like(stack.base) if centre is None else centre)


def _middle(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Returns the smallest value up to which at least half of the weights lie."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(share, share[-1] / 2)]])
