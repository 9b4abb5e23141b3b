"""The interface of an aggregation rule, and the one that the settings name."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from fedtlu_fast.aggregation.fedavg import WeightedMean
from fedtlu_fast.aggregation.robust import RobustRule
from fedtlu_fast.config import AggregationConfig


class AggregationRule(Protocol):
    """Makes one change of many clients' vectors, which come one at a time."""

    def add_(self, client: Tensor, samples: int) -> None:
        """Takes one client's vector [P] and the number of its samples."""
        ...

    def add_sum_(self, partial: Tensor, samples: int) -> None:
        """Takes ``sum_k n_k (w_k - w)`` [P] of some clients, and the number of their samples."""
        ...

    def change(self) -> Tensor:
        """[P], the aggregated change."""
        ...


def make_rule(config: AggregationConfig, base: Tensor, clients: int, backend: str) -> AggregationRule:
    """An empty aggregate of the settings' rule.

    Args:
        config: which rule.
        base: [P], what the clients start from.
        clients: how many there will be at most.
        backend: who runs the kernels.
    """
    if config.rule == "mean":
        return WeightedMean(base, backend)
    return RobustRule(config, base, clients)
