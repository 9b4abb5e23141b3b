"""Norm clipping: no client moves the mean further than a change of a given L2 norm would.

``dW = sum_k n_k d_k / max(1, ||d_k|| / clip) / sum_k n_k`` with d_k = w_k - w (Sun et al., "Can You Really
Backdoor Federated Learning?", arXiv 1911.07963). With a number for `clip` the clients stream through in O(P).
"""

from __future__ import annotations

from math import sqrt

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.aggregation.fedavg import WeightedMean
from fedtlu_fast.aggregation.stack import Stack
from fedtlu_fast.ops import dispatch


class ClippedMean:
    """The weighted mean of changes that are scaled down to a norm given in advance; memory: two vectors."""

    def __init__(self, base: Tensor, clip: float, backend: str = "auto") -> None:
        """Starts an empty mean.

        Args:
            base: [P], what the clients start from.
            clip: largest L2 norm of a client's change.
            backend: who runs the kernels.
        """
        self._mean, self._norm = WeightedMean(base, backend), ChangeNorm(base, backend)
        self._clip = clip

    def add_(self, client: Tensor, weight: float) -> None:
        """Adds one client's vector [P] with its weight; the vector may be reused afterwards."""
        self._mean.add_(client, weight, clipping(self._norm(client), self._clip))

    def add_sum_(self, partial: Tensor, weight: float) -> None:
        """Refuses: of a sum nobody knows the terms."""
        raise RuntimeError("norm clipping takes the clients one by one")

    def kept(self) -> None:
        """None: the change is made of all clients."""

    def change(self) -> Tensor:
        """[P], the mean of the clipped changes; zeros when no client was added."""
        return self._mean.change()


class MedianClippedMean:
    """The same with the median of the round's norms as the largest; memory: the stack, 4 K P bytes.

    The median counts every client once; that of an even number lies halfway between the two in the middle.
    """

    def __init__(self, base: Tensor, clients: int, spill: str | None = None, backend: str = "auto") -> None:
        """Makes room for the stack.

        Args:
            base: [P], what the clients start from.
            clients: K at most.
            spill: directory for the stack; None: in memory.
            backend: who runs the kernels.
        """
        self.backend = backend
        self._stack, self._norm = Stack(base, clients, spill), ChangeNorm(base, backend)
        self._norms: list[float] = []
        self._weights: list[float] = []

    def add_(self, client: Tensor, weight: float) -> None:
        """Puts one client's vector [P] on the stack; it may be reused afterwards."""
        self._stack.add_(client)
        self._norms.append(self._norm(client))
        self._weights.append(weight)

    def add_sum_(self, partial: Tensor, weight: float) -> None:
        """Refuses: of a sum nobody knows the terms."""
        raise RuntimeError("norm clipping takes the clients one by one")

    def kept(self) -> None:
        """None: the change is made of all clients."""

    def change(self) -> Tensor:
        """[P], the mean of the clipped changes; zeros when no client was added."""
        mean = WeightedMean(self._stack.base, self.backend)
        if self._norms:
            clip = float(np.median(self._norms))
            for place, (norm, weight) in enumerate(zip(self._norms, self._weights, strict=True)):
                mean.add_(self._stack.row(place), weight, clipping(norm, clip))
        return mean.change()


class ChangeNorm:
    """The L2 norm of a client's change, in one pass of `aggregate`."""

    def __init__(self, base: Tensor, backend: str = "auto") -> None:
        """Takes memory for one vector.

        Args:
            base: [P], what the clients start from.
            backend: who runs the kernels.
        """
        self.base, self.backend = base, backend
        self._scratch = torch.empty_like(base)
        self._whole = torch.tensor([0, len(base)])

    def __call__(self, client: Tensor) -> float:
        """Of ``client - base``, summed in float64; finite for every finite client."""
        # Half the change: the difference of two float32 numbers may be larger than any of them.
        _, half, _ = dispatch.aggregate(
            [client], [0.5], self._whole, base=self.base, out=self._scratch, backend=self.backend
        )
        return 2 * sqrt(float(half.m2[0]) + len(self.base) * float(half.mean[0]) ** 2)


def clipping(norm: float, clip: float) -> float:
    """What a change of this norm is multiplied by: 1 at most; 1 for no change at all."""
    return 1.0 if norm <= clip else clip / norm
