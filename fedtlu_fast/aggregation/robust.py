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

from fedtlu_fast.aggregation.rule import Aggregated, Arrived, StackedRule
from fedtlu_fast.aggregation.stack import Spill
from fedtlu_fast.ops.stacks import sorted_mean
from fedtlu_fast.parts import part


class CoordinateRule(StackedRule):
    """The base class of rules that average the middle values of every number of the change."""

    @abstractmethod
    def places(self, arrived: int) -> tuple[int, int]:
        """Returns the first place, in ascending order, that is averaged, and the place behind the last.

        Args:
            arrived: K, the number of clients, at least 1.
        """

    def finish(self, state: Arrived) -> Aggregated:
        """Applies the rule at every place; zeros if no client arrived.

        The values are averaged in float64, from the smallest to the largest, and rounded once.
        """
        base = state.start.base
        change = torch.zeros_like(base)
        if len(state.stack):
            places = self.places(len(state.stack))
            for columns, rows in state.stack.blocks():
                sorted_mean(
                    rows, *places, base=base[columns], out=change[columns], backend=state.start.backend
                )
        return Aggregated(change)


@part
class Median(CoordinateRule):
    """The median of the clients' changes, number by number; of an even number, the mean of the middle two.

    Attributes:
        spill: directory for the cohort's vectors; null: in memory.
    """

    spill: Spill = None

    def places(self, arrived: int) -> tuple[int, int]:
        """Returns the place of the middle value, or of the two middle values."""
        return (arrived - 1) // 2, arrived // 2 + 1


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

    def places(self, arrived: int) -> tuple[int, int]:
        """Returns the places of the remaining values."""
        cut = floor(self.trim * arrived)
        return cut, arrived - cut
