"""Adds a client optimizer, Lion (Chen et al., arXiv 2302.06675); any `torch.optim.Optimizer` can be used."""

from collections.abc import Iterable

import torch
from torch import Tensor


class LionSteps(torch.optim.Optimizer):
    """Steps by the sign of a weighted mean of gradient and momentum."""

    def __init__(self, params: Iterable[Tensor], lr: float, beta1: float, beta2: float) -> None:
        super().__init__(params, {"lr": lr, "beta1": beta1, "beta2": beta2})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Takes one step of every parameter that has a gradient."""
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    held = self.state[param].setdefault("momentum", torch.zeros_like(param))
                    param.sub_(held.lerp(param.grad, 1 - group["beta1"]).sign(), alpha=group["lr"])
                    held.lerp_(param.grad, 1 - group["beta2"])


def lion(params: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Makes an optimizer from parameters, in the form that `Local` and ``training.optimizer`` take."""
    return LionSteps(params, lr=3e-3, beta1=0.9, beta2=0.99)
