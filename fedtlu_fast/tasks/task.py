"""The interface of a task."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from fedtlu_fast.data.population import Batch


class Task(Protocol):
    """What is trained: a model and its loss."""

    @property
    def model(self) -> nn.Module:
        """The model whose parameters are trained."""
        ...

    def loss(self, batch: Batch) -> Tensor:
        """Mean loss of a batch (scalar), differentiable."""
        ...

    def losses(self, batch: Batch) -> Tensor:
        """[B], the loss of every sample, differentiable; their mean is `loss`."""
        ...

    def sample_losses(self, batch: Batch, batch_size: int) -> Tensor:
        """[N] float64, the loss of every sample, without gradients, `batch_size` at a time."""
        ...
