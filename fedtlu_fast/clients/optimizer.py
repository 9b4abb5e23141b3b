"""The optimizers of local training: torch's own update rules on flat vectors, or on rows of clients.

torch's functional forms are used rather than its classes: these would be made anew for every client, and
the first one made imports a compiler for a second and a half.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from fedtlu_fast.config import TrainingConfig


class Optimizer:
    """SGD with momentum and weight decay, or AdamW, from its first step: clients keep no state."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self._taken: list[Tensor] = []
        self._first: list[Tensor] = []
        self._second: list[Tensor] = []

    @torch.no_grad()
    def step_(self, params: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
        """Updates the parameters.

        Args:
            params: the pieces of a client's vector that it trains, the same in every step; or one matrix
                [K, P] for K clients, of which K may shrink from step to step: the first rows go on.
            grads: of the same shapes.
        """
        params, grads = list(params), list(grads)
        if self.config.optimizer == "sgd":
            self._sgd_(params, grads)
        else:
            self._adamw_(params, grads)

    def _sgd_(self, params: list[Tensor], grads: list[Tensor]) -> None:
        buffers: list[Tensor | None] = list(_heads(self._first, params)) or [None] * len(params)
        sgd(
            params,
            grads,
            buffers,
            weight_decay=self.config.weight_decay,
            momentum=self.config.momentum,
            lr=self.config.lr,
            dampening=0,
            nesterov=False,
            maximize=False,
        )
        if not self._first:
            self._first = [buffer for buffer in buffers if buffer is not None]

    def _adamw_(self, params: list[Tensor], grads: list[Tensor]) -> None:
        if not self._first:
            self._first = [torch.zeros_like(piece) for piece in params]
            self._second = [torch.zeros_like(piece) for piece in params]
            self._taken = [torch.zeros(()) for _ in params]
        adamw(
            params,
            grads,
            _heads(self._first, params),
            _heads(self._second, params),
            [],
            self._taken,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.config.lr,
            weight_decay=self.config.weight_decay,
            eps=1e-8,
            maximize=False,
        )


def _heads(state: Sequence[Tensor], params: Sequence[Tensor]) -> list[Tensor]:
    """The state of the rows that still train."""
    return [own[: len(piece)] for own, piece in zip(state, params, strict=False)]
