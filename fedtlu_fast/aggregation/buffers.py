"""Aggregates the model's floating-point buffers (BatchNorm's statistics).

If the rule chooses among the clients, the result is the mean of the same clients' buffers. With all other
rules, buffers are averaged with the clients' weights (ours; no paper defines it).
"""

from __future__ import annotations

from torch import Tensor

from fedtlu_fast.aggregation.fedavg import WeightedMean
from fedtlu_fast.aggregation.stack import Stack


class BuffersMean:
    """The mean of the buffers of a cohort, to which one client or one sum of clients is added at a time."""

    def __init__(self, base: Tensor, clients: int, chooses: bool, backend: str = "auto") -> None:
        """Starts an empty mean.

        Args:
            base: [Q], the global buffers.
            clients: the size of the cohort.
            chooses: whether the rule chooses among the clients; then all buffers are kept, 4 K Q bytes.
            backend: the backend that runs the kernels.
        """
        self._mean = WeightedMean(base, backend)
        self._stack = Stack(base, clients) if chooses else None

    def add_(self, buffers: Tensor, weight: float) -> None:
        """Adds one client's buffers [Q] with its weight."""
        if self._stack is not None:
            self._stack.add_(buffers)
        else:
            self._mean.add_(buffers, weight)

    def add_sum_(self, partial: Tensor, weight: float) -> None:
        """Adds ``sum_k n_k (b_k - b)`` [Q] of several clients; `weight` is the sum of their weights."""
        self._mean.add_sum_(partial, weight)

    def change(self, kept: list[int] | None) -> Tensor:
        """Returns [Q], the mean change of the kept clients (None: all clients); zeros without clients."""
        if self._stack is not None:
            for place in kept or ():
                self._mean.add_(self._stack.row(place), 1)
        return self._mean.change()
