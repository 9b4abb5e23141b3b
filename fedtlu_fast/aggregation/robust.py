"""Rules by coordinate: median and trimmed mean (Yin et al., arXiv 1803.01498).

They need all of a round's clients at once: 4 K P bytes, in memory or in a file (`Stack`).
"""

from __future__ import annotations

from math import floor

import torch
from torch import Tensor

from fedtlu_fast.aggregation.stack import Stack
from fedtlu_fast.config import AggregationConfig


class RobustRule:
    """The median or trimmed mean of the clients' changes; every client counts once, whatever it holds."""

    def __init__(self, config: AggregationConfig, base: Tensor, clients: int) -> None:
        """Makes room for the stack.

        Args:
            config: which rule, and where the stack is to lie.
            base: [P], what the clients start from.
            clients: K at most.
        """
        self.config = config
        self._stack = Stack(base, clients, config.spill)

    def add_(self, client: Tensor, weight: float) -> None:
        """Puts one client's vector [P] on the stack; it may be reused afterwards."""
        self._stack.add_(client)

    def add_sum_(self, partial: Tensor, weight: float) -> None:
        """Refuses: of a sum nobody knows the terms."""
        raise RuntimeError("robust rules take the clients one by one")

    def kept(self) -> None:
        """None: the change is made of all clients."""

    def change(self) -> Tensor:
        """[P], what the rule makes of the clients' changes; zeros when no client was added."""
        base = self._stack.base
        change = torch.zeros_like(base)
        if not len(self._stack):
            return change
        for columns, clients in self._stack.blocks():
            change[columns] = self._rule(clients - base[columns])
        return change

    def _rule(self, changes: Tensor) -> Tensor:
        if self.config.rule == "median":
            middle = changes.sort(dim=0).values
            low, high = middle[(len(changes) - 1) // 2], middle[len(changes) // 2]
            return low + (high - low) / 2
        cut = floor(self.config.trim * len(changes))
        return changes.sort(dim=0).values[cut : len(changes) - cut].mean(dim=0)
