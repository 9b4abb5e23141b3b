"""The interface of an aggregation rule, and those that the settings name."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from fedtlu_fast.aggregation.clipping import ClippedMean, MedianClippedMean
from fedtlu_fast.aggregation.fedavg import WeightedMean
from fedtlu_fast.aggregation.krum import KeptMean, Krum
from fedtlu_fast.aggregation.robust import RobustRule
from fedtlu_fast.config import AggregationConfig


class AggregationRule(Protocol):
    """Makes one change of many clients' vectors, which come one at a time and are sound (`soundness`)."""

    def add_(self, client: Tensor, weight: float) -> None:
        """Takes one client's vector [P] and its weight, usually the number of its samples."""
        ...

    def add_sum_(self, partial: Tensor, weight: float) -> None:
        """Takes ``sum_k n_k (w_k - w)`` [P] of some clients, and the sum of their weights."""
        ...

    def kept(self) -> list[int] | None:
        """Of a rule that chooses among the clients, the places (from 0, ascending) of those it keeps."""
        ...

    def change(self) -> Tensor:
        """[P], the aggregated change."""
        ...


def make_rule(config: AggregationConfig, base: Tensor, clients: int, backend: str) -> AggregationRule:
    """An empty aggregate of the settings' rule.

    Args:
        config: which rule.
        base: [P], what the clients start from.
        clients: the size of the cohort; there will be no more.
        backend: who runs the kernels.
    """
    if config.rule == "mean":
        return WeightedMean(base, backend)
    if config.rule in ("krum", "multi_krum"):
        return Krum(config, base, clients, backend)
    if config.rule == "norm_clip":
        if config.clip is not None:
            return ClippedMean(base, config.clip, backend)
        return MedianClippedMean(base, clients, config.spill, backend)
    return RobustRule(config, base, clients)


def make_buffers_rule(rule: AggregationRule, base: Tensor, clients: int, backend: str) -> AggregationRule:
    """An empty aggregate of the model's buffers beside the parameters'.

    Krum keeps the same clients' for both. All other rules are about parameters, and buffers (BatchNorm's
    statistics) are averaged with the clients' weights (ours; no paper says).

    Args:
        rule: of the parameters.
        base: [Q], the global buffers.
        clients: the size of the cohort; there will be no more.
        backend: who runs the kernels.
    """
    if isinstance(rule, Krum):
        return KeptMean(rule, base, clients, backend)
    return WeightedMean(base, backend)
