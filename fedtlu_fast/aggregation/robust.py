"""Rules by coordinate: median and trimmed mean (Yin et al., arXiv 1803.01498).

Every client counts once, whatever its number of samples. Both rules need all clients of a round together,
which takes 4 K P bytes, in memory or in a file (`Stack`).
"""

from __future__ import annotations

from abc import abstractmethod
from math import floor
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from fedtlu_fast.aggregation.rule import Aggregated, Arrived, StackedRule
from fedtlu_fast.aggregation.stack import Spill
from fedtlu_fast.parts import part


class CoordinateRule(StackedRule):
    """The base class of rules that treat every number of the change separately."""

    @abstractmethod
    def reduce(self, changes: Tensor) -> Tensor:
        """Returns [n], the aggregate of the clients' changes [K, n] at n places; K is at least 1."""

    def finish(self, state: Arrived) -> Aggregated:
        """Applies the rule at every place, some columns at a time; zeros if no client arrived."""
        base = state.start.base
        change = torch.zeros_like(base)
        if len(state.stack):
            for columns, clients in state.stack.blocks():
                change[columns] = self.reduce(clients - base[columns])
        return Aggregated(change)


@part
class Median(CoordinateRule):
    """The median of the clients' changes, number by number.

    Attributes:
        spill: directory for the cohort's vectors; null: in memory.
    """

    spill: Spill = None

    def reduce(self, changes: Tensor) -> Tensor:
        """Returns the middle value at every place, or the mean of the two middle values."""
        middle = changes.sort(dim=0).values
        low, high = middle[(len(changes) - 1) // 2], middle[len(changes) // 2]
        return low + (high - low) / 2


@part
class TrimmedMean(CoordinateRule):
    """The mean of the clients' changes, number by number, without the largest and the smallest values.

    Attributes:
        trim: share of the clients whose values are cut off at each end, in [0, 0.5); the number is rounded
            down.
        spill: directory for the cohort's vectors; null: in memory.
    """

    trim: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    spill: Spill = None

    def reduce(self, changes: Tensor) -> Tensor:
        """Returns the mean of the remaining values at every place."""
        cut = floor(self.trim * len(changes))
        return changes.sort(dim=0).values[cut : len(changes) - cut].mean(dim=0)
