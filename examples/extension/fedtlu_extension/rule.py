"""Adds an aggregation rule: the geometric median (Pillutla et al., arXiv 1912.13445)."""

from typing import Annotated

import torch
from pydantic import Field

from fedtlu_fast.aggregation.rule import Aggregated, StackedRule
from fedtlu_fast.parts import part


@part
class GeometricMedian(StackedRule):
    """Returns the point with the smallest weighted sum of distances to the clients' changes.

    Attributes:
        steps: number of steps of Weiszfeld's algorithm.
    """

    steps: Annotated[int, Field(ge=1)] = 8

    def finish(self, state) -> Aggregated:
        """Computes the median; returns zeros if no client arrived."""
        base = state.start.base
        if not len(state.stack):
            return Aggregated(torch.zeros_like(base))
        changes = torch.stack([state.stack.row(place) for place in range(len(state.stack))]) - base
        weights = torch.tensor(state.weights, dtype=torch.float64, device=base.device)
        center = changes.double().mean(dim=0)
        for _ in range(self.steps):
            shares = weights / (changes - center).norm(dim=1).clamp(min=1e-9)
            center = (shares[:, None] * changes).sum(dim=0) / shares.sum()
        return Aggregated(center.float())
