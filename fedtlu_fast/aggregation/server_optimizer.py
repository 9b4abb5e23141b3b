"""Server optimizers: the step that the global model makes of the aggregated change.

FedAvgM (Hsu et al., arXiv 1909.06335) and FedAdam (Reddi et al., arXiv 2003.00295, Algorithm 2). Blocks are
scored and chosen by the aggregated change itself, as FedTLU has it; the optimizer then makes the step for
the chosen layers alone, and its state of all other layers keeps its bits (ours: neither paper selects).
Steps are computed in float64 and rounded once, state and step alike: the same bits on every device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedtlu_fast.config import AggregationConfig

OptimizerState = Mapping[str, Tensor]
"""Vectors [P] float32 by name; empty before the first step, and for no optimizer."""

PIECE = 2**18
"""Numbers that are treated at a time, so that the float64 of the calculation stays in the cache."""


class ServerOptimizer(Protocol):
    """Makes a step of a change."""

    @property
    def vectors(self) -> int:
        """How many vectors [P] its state has."""
        ...

    def step(
        self, change: Tensor, state: OptimizerState, offsets: Tensor, mask: Tensor
    ) -> tuple[Tensor, OptimizerState]:
        """What `server_lr` is multiplied with and the parameters move by, and the next state.

        Args:
            change: [P] float32, the aggregated change; not changed.
            state: as the step before left it; not changed.
            offsets: [L + 1] int64, on the CPU: layer l is ``change[offsets[l]:offsets[l + 1]]``.
            mask: [L] bool, on the CPU: the layers that are applied, all of whose changes are finite.

        Returns:
            [P], which means something for the layers of `mask` only; and the state.
        """
        ...


@dataclass(frozen=True)
class Plain:
    """No optimizer: FedAvg's step, the change itself."""

    vectors = 0

    def step(
        self, change: Tensor, state: OptimizerState, offsets: Tensor, mask: Tensor
    ) -> tuple[Tensor, OptimizerState]:
        """See `ServerOptimizer`."""
        return change, state


@dataclass(frozen=True)
class Momentum:
    """FedAvgM: ``v = momentum v + dW``, and v is the step; v begins at 0.

    Attributes:
        momentum: in [0, 1).
    """

    momentum: float
    vectors = 1

    def step(
        self, change: Tensor, state: OptimizerState, offsets: Tensor, mask: Tensor
    ) -> tuple[Tensor, OptimizerState]:
        """See `ServerOptimizer`; the state is ``momentum``."""
        momentum = state["momentum"].clone() if state else torch.zeros_like(change)
        for piece in _pieces(offsets, mask):
            momentum[piece] = momentum[piece].double() * self.momentum + change[piece].double()
        return momentum, {"momentum": momentum}


@dataclass(frozen=True)
class Adam:
    """FedAdam, Algorithm 2 of the paper, without bias correction as there.

    ``m = beta1 m + (1 - beta1) dW``, ``v = beta2 v + (1 - beta2) dW^2``, and the step is
    ``m / (sqrt(v) + tau)``. m begins at 0. The paper asks for v >= tau^2 at the beginning; it is tau^2 here.
    v is at most the largest float32 (ours): a change whose square is beyond it would stop its parameter
    for ever.

    Attributes:
        beta1: in [0, 1).
        beta2: in [0, 1).
        tau: more than 0; the larger, the less adaptive.
    """

    beta1: float
    beta2: float
    tau: float
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


def make_server_optimizer(config: AggregationConfig) -> ServerOptimizer:
    """The one that the settings name."""
    if config.server_optimizer == "momentum":
        return Momentum(config.server_momentum)
    if config.server_optimizer == "adam":
        return Adam(config.server_beta1, config.server_beta2, config.server_tau)
    return Plain()


def _pieces(offsets: Tensor, mask: Tensor) -> Iterator[slice]:
    """The chosen layers' places, cut into pieces."""
    bounds: list[int] = offsets.tolist()
    for layer in mask.nonzero().flatten().tolist():
        for first in range(bounds[layer], bounds[layer + 1], PIECE):
            yield slice(first, min(first + PIECE, bounds[layer + 1]))
