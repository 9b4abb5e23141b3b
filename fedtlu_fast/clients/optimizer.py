"""The optimizers of local training: torch's own update rules on flat vectors, or on rows of clients.

torch's functional forms are used rather than its classes: these would be made anew for every client, and
the first one made imports a compiler for a second and a half.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from fedtlu_fast.config import TrainingConfig


class Optimizer:
    """SGD with momentum and weight decay, or AdamW, from its first step: clients keep no state."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self._taken = torch.zeros(())
        self._first: Tensor | None = None
        self._second: Tensor | None = None

    @torch.no_grad()
    def step_(self, params: Tensor, grads: Tensor) -> None:
        """Updates the parameters.

        Args:
            params: [P], or [K, P] for K clients; K may shrink from step to step, the first rows go on.
            grads: of the same shape.
        """
        if self.config.optimizer == "sgd":
            self._sgd_(params, grads)
        else:
            self._adamw_(params, grads)

    def _sgd_(self, params: Tensor, grads: Tensor) -> None:
        buffers: list[Tensor | None] = [None if self._first is None else self._first[: len(params)]]
        sgd(
            [params],
            [grads],
            buffers,
            weight_decay=self.config.weight_decay,
            momentum=self.config.momentum,
            lr=self.config.lr,
            dampening=0,
            nesterov=False,
            maximize=False,
        )
        if self._first is None:
            self._first = buffers[0]

    def _adamw_(self, params: Tensor, grads: Tensor) -> None:
        if self._first is None or self._second is None:
            self._first, self._second = torch.zeros_like(params), torch.zeros_like(params)
        adamw(
            [params],
            [grads],
            [self._first[: len(params)]],
            [self._second[: len(params)]],
            [],
            [self._taken],
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.config.lr,
            weight_decay=self.config.weight_decay,
            eps=1e-8,
            maximize=False,
        )
