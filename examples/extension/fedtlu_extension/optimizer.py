"""A client optimizer: Lion (Chen et al., arXiv 2302.06675), as any `torch.optim.Optimizer`."""

from collections.abc import Iterable

import torch
from torch import Tensor


class LionSteps(torch.optim.Optimizer):
    """Steps of the sign of a mean of gradient and momentum."""

    def __init__(self, params: Iterable[Tensor], lr: float, beta1: float, beta2: float) -> None:
        super().__init__(params, {"lr": lr, "beta1": beta1, "beta2": beta2})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    held = self.state[param].setdefault("momentum", torch.zeros_like(param))
                    param.sub_(held.lerp(param.grad, 1 - group["beta1"]).sign(), alpha=group["lr"])
                    held.lerp_(param.grad, 1 - group["beta2"])


def lion(params: Iterable[Tensor]) -> torch.optim.Optimizer:
    """What `Local` and ``training.optimizer`` take: parameters in, an optimizer out."""
    return LionSteps(params, lr=3e-3, beta1=0.9, beta2=0.99)
