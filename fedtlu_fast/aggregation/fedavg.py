"""FedAvg: the mean of the clients' changes, weighted by their numbers of samples, in O(P) memory."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.aggregation.rule import Aggregated, AggregationRule, Start
from fedtlu_fast.aggregation.share import MaxShare, check_share
from fedtlu_fast.ops import dispatch
from fedtlu_fast.parts import part


class WeightedMean:
    """The mean dW = sum_k n_k (w_k - w) / sum_k n_k, computed one client at a time (arXiv 1602.05629)."""

    def __init__(self, base: Tensor, backend: str = "auto", out: Tensor | None = None) -> None:
        """Starts an empty mean.

        Args:
            base: [P], w, the parameters with which the clients started; kept, not changed.
            backend: the backend that runs the kernels.
            out: [P], the vector that holds the sum; None: a new vector.
        """
        self.base, self.backend = base, backend
        self.total: float = 0
        self.sum = torch.zeros_like(base) if out is None else out.zero_()

    def add_(self, client: Tensor, weight: float, factor: float = 1.0) -> None:
        """Adds one client's vector [P] with its weight; the vector may be reused afterwards.

        Args:
            client: [P], w_k, the client's parameters.
            weight: n_k, the client's number of samples, or less if `share` limits it.
            factor: a factor of the client's change, which leaves the weight unchanged.
        """
        if len(self.sum):
            dispatch.accumulate_(self.sum, client, self.base, weight * factor, self.backend)
        self.total += weight

    def add_piece_(self, place: slice, piece: Tensor, weight: float) -> None:
        """Adds a part of one client's vector, with the bits of `add_`; `total` has to be raised for it.

        Args:
            place: a place in the vector; where a client adds no part, it counts as unchanged.
            piece: [N], the client's parameters there.
            weight: n_k.
        """
        dispatch.accumulate_(self.sum[place], piece, self.base[place], weight, self.backend)

    def add_sum_(self, partial: Tensor, weight: float) -> None:
        """Adds the `sum` [P] of another mean from the same base; `weight` is the sum of its weights."""
        if len(self.sum):
            dispatch.accumulate_(self.sum, partial, None, 1.0, self.backend)
        self.total += weight

    def change(self) -> Tensor:
        """Returns [P], the averaged change; zeros if no client was added."""
        return self.sum / (self.total or 1)

    def change_(self) -> Tensor:
        """Returns `change`, in the memory of `sum`; the mean is of no use afterwards."""
        return self.sum.div_(self.total or 1)


@part
class Mean(AggregationRule):
    """FedAvg: the weighted mean of the clients' changes (arXiv 1602.05629), in the memory of one vector.

    Attributes:
        max_share: largest share of one client in the sum of a round's weights, at least 1 / cohort; larger
            weights are cut (see `largest_weight`); null: no limit.
    """

    max_share: MaxShare = None
    takes_sums = True
    averages = True

    @override
    def check(self, cohort: int) -> None:
        check_share(self.max_share, cohort)

    def start(self, start: Start) -> WeightedMean:
        """Returns an empty mean."""
        return WeightedMean(start.base, start.backend)

    def add(self, state: WeightedMean, client: int, weight: float, vector: Tensor) -> WeightedMean:
        """Adds one client's change."""
        state.add_(vector, weight)
        return state

    def add_sum(self, state: WeightedMean, weight: float, partial: Tensor) -> WeightedMean:
        """Adds the sum of several clients' weighted changes."""
        state.add_sum_(partial, weight)
        return state

    def finish(self, state: WeightedMean) -> Aggregated:
        """Returns the mean, in the memory of the sum; zeros if no client arrived."""
        return Aggregated(state.change_())
