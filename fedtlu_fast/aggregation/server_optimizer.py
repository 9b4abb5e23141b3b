"""Server optimizers, which turn the aggregated change into the step of the global model.

They are FedAvgM (Hsu et al., arXiv 1909.06335) and FedAdam (Reddi et al., arXiv 2003.00295, Algorithm 2).
Blocks are scored and chosen by the aggregated change itself, as in FedTLU. The optimizer then makes the step
of the chosen layers only, and its state of all other layers keeps its bits (ours: neither paper selects
layers). Steps and states are computed in float64 and rounded once, so that they have the same bits on every
device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.parts import part

OptimizerState = Mapping[str, Tensor]
"""An optimizer's vectors [P] float32 by name; empty before the first step, and for `Plain`."""

PIECE = 2**18
"""Number of elements that are treated at a time, so that their float64 copies stay in the cache."""


class ServerOptimizer(ABC):
    """Turns an aggregated change into a step. To write your own, subclass it.

    Attributes:
        vectors: number of vectors [P] in its state.
    """

    vectors: ClassVar[int] = 0

    @abstractmethod
    def step(
        self, change: Tensor, state: OptimizerState, offsets: Tensor, mask: Tensor
    ) -> tuple[Tensor, OptimizerState]:
        """Computes the step, which is multiplied by `server_lr` and added to the parameters.

        Args:
            change: [P] float32, the aggregated change; not changed.
            state: the state after the step before, empty before the first step; not changed.
            offsets: [L + 1] int64, on the CPU: layer l is ``change[offsets[l]:offsets[l + 1]]``.
            mask: [L] bool, on the CPU, true for the layers that are applied; their changes are finite.

        Returns:
            The step [P] float32, of which only the layers of `mask` are used; and the new state.
        """


@part
class Plain(ServerOptimizer):
    """No optimizer: the step is the change itself, as in FedAvg."""

    vectors = 0

    @override
    def step(
        self, change: Tensor, state: OptimizerState, offsets: Tensor, mask: Tensor
    ) -> tuple[Tensor, OptimizerState]:
        return change, state


@part
class Momentum(ServerOptimizer):
    """FedAvgM (arXiv 1909.06335): the step is ``v = momentum v + dW``, where v is 0 at first.

    Attributes:
        momentum: factor of the last step, in [0, 1).
    """

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    vectors = 1

    def step(
        self, change: Tensor, state: OptimizerState, offsets: Tensor, mask: Tensor
    ) -> tuple[Tensor, OptimizerState]:
        """See `ServerOptimizer`. The state is ``momentum`` (v)."""
        momentum = state["momentum"].clone() if state else torch.zeros_like(change)
        for piece in _pieces(offsets, mask):
            momentum[piece] = momentum[piece].double() * self.momentum + change[piece].double()
        return momentum, {"momentum": momentum}


@part
class Adam(ServerOptimizer):
    """FedAdam (arXiv 2003.00295, Algorithm 2), without bias correction as in the paper.

    With ``m = beta1 m + (1 - beta1) dW`` and ``v = beta2 v + (1 - beta2) dW^2``, the step is ``m / (sqrt(v) +
    tau)``. At first m is 0 and v is tau^2, the smallest value that the paper allows. v is at most the largest
    float32 (ours), because with an infinite v its parameter would never move again.

    Attributes:
        beta1: decay of the mean of the changes, in [0, 1).
        beta2: decay of the mean of their squares, in [0, 1).
        tau: adaptivity, more than 0; a larger tau makes the step less adaptive.
    """

    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    tau: Annotated[float, Field(gt=0)] = 1e-3
    vectors = 2

    def step(
        self, change: Tensor, state: OptimizerState, offsets: Tensor, mask: Tensor
    ) -> tuple[Tensor, OptimizerState]:
        """See `ServerOptimizer`. The state is ``mean`` (m) and ``square`` (v)."""
        mean = state["mean"].clone() if state else torch.zeros_like(change)
        square = state["square"].clone() if state else torch.full_like(change, self.tau**2)
        step, largest = torch.zeros_like(change), torch.finfo(square.dtype).max
        for piece in _pieces(offsets, mask):
            own = change[piece].double()
            # Separate products and sums, because fused ones differ between machines in the last bit.
            m = mean[piece].double() * self.beta1 + own * (1 - self.beta1)
            v = square[piece].double() * self.beta2 + own.square() * (1 - self.beta2)
            step[piece] = m / (v.sqrt() + self.tau)
            mean[piece], square[piece] = m, v.clamp(max=largest)
        return step, {"mean": mean, "square": square}


def _pieces(offsets: Tensor, mask: Tensor) -> Iterator[slice]:
    """Yields the slices of the chosen layers, cut into pieces of `PIECE` elements."""
    bounds: list[int] = offsets.tolist()
    for layer in mask.nonzero().flatten().tolist():
        for first in range(bounds[layer], bounds[layer + 1], PIECE):
            yield slice(first, min(first + PIECE, bounds[layer + 1]))
