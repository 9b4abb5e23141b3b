"""Server optimizers: the step that the global model makes of the aggregated change.

FedAvgM (Hsu et al., arXiv 1909.06335) and FedAdam (Reddi et al., arXiv 2003.00295, Algorithm 2). Blocks are
scored and chosen by the aggregated change itself, as FedTLU has it; the optimizer then makes the step for
the chosen layers alone, and its state of all other layers keeps its bits (ours: neither paper selects).
Steps are computed in float64 and rounded once, state and step alike: the same bits on every device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedtlu_fast.parts import part

OptimizerState = Mapping[str, Tensor]
"""Vectors [P] float32 by name; empty before the first step, and for no optimizer."""

PIECE = 2**18
"""Numbers that are treated at a time, so that the float64 of the calculation stays in the cache."""


class ServerOptimizer(ABC):
    """Makes a step of a change. To write your own, subclass it.

    Attributes:
        vectors: how many vectors [P] its state has.
    """

    vectors: ClassVar[int] = 0

    @abstractmethod
    def step(
        self, change: Tensor, state: OptimizerState, offsets: Tensor, mask: Tensor
    ) -> tuple[Tensor, OptimizerState]:
        """The step, which is multiplied with `server_lr` and added to the parameters, and the next state.

        Args:
            change: [P] float32, the aggregated change; not changed.
            state: as the step before left it; not changed. It is empty before the first step.
            offsets: [L + 1] int64, on the CPU: layer l is ``change[offsets[l]:offsets[l + 1]]``.
            mask: [L] bool, on the CPU: the layers that are applied, all of whose changes are finite.

        Returns:
            [P], of which only the layers of `mask` count; and the state.
        """


@part
class Plain(ServerOptimizer):
    """No optimizer: FedAvg's step, the change itself."""

    vectors = 0

    def step(
        self, change: Tensor, state: OptimizerState, offsets: Tensor, mask: Tensor
    ) -> tuple[Tensor, OptimizerState]:
        """See `ServerOptimizer`."""
        return change, state


@part
class Momentum(ServerOptimizer):
    """FedAvgM: ``v = momentum v + dW``, and v is the step; v begins at 0.

    Attributes:
        momentum: share of the last step, in [0, 1).
    """

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    vectors = 1

    def step(
        self, change: Tensor, state: OptimizerState, offsets: Tensor, mask: Tensor
    ) -> tuple[Tensor, OptimizerState]:
        """See `ServerOptimizer`; the state is ``momentum``."""
        momentum = state["momentum"].clone() if state else torch.zeros_like(change)
        for piece in _pieces(offsets, mask):
            momentum[piece] = momentum[piece].double() * self.momentum + change[piece].double()
        return momentum, {"momentum": momentum}


@part
class Adam(ServerOptimizer):
    """FedAdam, Algorithm 2 of the paper, without bias correction as there.

    ``m = beta1 m + (1 - beta1) dW``, ``v = beta2 v + (1 - beta2) dW^2``, and the step is
    ``m / (sqrt(v) + tau)``. m begins at 0. The paper asks for v >= tau^2 at the beginning; it is tau^2 here.
    v is at most the largest float32 (ours): a change whose square is beyond it would stop its parameter
    for ever.

    Attributes:
        beta1: decay of the mean of the changes, in [0, 1).
        beta2: decay of the mean of their squares, in [0, 1).
        tau: the larger, the less adaptive; more than 0.
    """

    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    tau: Annotated[float, Field(gt=0)] = 1e-3
    vectors = 2

    def step(
        self, change: Tensor, state: OptimizerState, offsets: Tensor, mask: Tensor
    ) -> tuple[Tensor, OptimizerState]:
        """See `ServerOptimizer`; the state is ``mean`` (m) and ``square`` (v)."""
        mean = state["mean"].clone() if state else torch.zeros_like(change)
        square = state["square"].clone() if state else torch.full_like(change, self.tau**2)
        step, largest = torch.zeros_like(change), torch.finfo(square.dtype).max
        for piece in _pieces(offsets, mask):
            own = change[piece].double()
            # Products and sums one by one: fused, they would differ in the last bit between machines.
            m = mean[piece].double() * self.beta1 + own * (1 - self.beta1)
            v = square[piece].double() * self.beta2 + own.square() * (1 - self.beta2)
            step[piece] = m / (v.sqrt() + self.tau)
            mean[piece], square[piece] = m, v.clamp(max=largest)
        return step, {"mean": mean, "square": square}


def _pieces(offsets: Tensor, mask: Tensor) -> Iterator[slice]:
    """The chosen layers' places, cut into pieces."""
    bounds: list[int] = offsets.tolist()
    for layer in mask.nonzero().flatten().tolist():
        for first in range(bounds[layer], bounds[layer + 1], PIECE):
            yield slice(first, min(first + PIECE, bounds[layer + 1]))
