"""The interface of a task."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from fedtlu_fast.data.population import Batch
from fedtlu_fast.tasks.metrics import Evaluation


class Task(Protocol):
    """What is trained: a model and its loss.

    A sample asks for one or more predictions (a label, every next token, every word's tag), and a mean loss
    is a mean over predictions, not over samples.
    """

    @property
    def model(self) -> nn.Module:
        """The model whose parameters are trained."""
        ...

    def loss(self, batch: Batch) -> Tensor:
        """Mean loss of a batch's predictions (scalar), differentiable; 0 when there are none."""
        ...

    def losses(self, batch: Batch) -> Tensor:
        """[B], every sample's mean over its predictions, differentiable.

        Their mean, weighted by `counts`, is `loss`.
        """
        ...

    def counts(self, batch: Batch) -> Tensor:
        """[B] int64, every sample's predictions; or [K, B] of K clients' batches."""
        ...

    def trim(self, batch: Batch) -> Batch:
        """The same predictions without what only fills samples up; also of K clients' batches [K, B, ...].

        Trainers call it on every batch. Losses agree to float32 rounding; where nothing fills up, it is the
        batch itself.
        """
        ...

    def evaluate(self, batch: Batch, batch_size: int) -> Evaluation:
        """Tests the model on these samples, without gradients, `batch_size` at a time."""
        ...
