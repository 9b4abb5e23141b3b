"""The interface of a task."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from fedtlu_fast.data.population import Batch, Pool
from fedtlu_fast.tasks.metrics import Evaluation, Figure


class Task(Protocol):
    """What is trained: a model and its loss.

    A sample asks for one or more predictions (a label, every next token, every word's tag), and a mean loss
    is a mean over predictions, not over samples.
    """

    @property
    def model(self) -> nn.Module:
        """The model whose parameters are trained."""
        ...

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What tests report beside the loss; tables and pictures compare runs by the first, the headline.

        Where there is none, the loss is the headline.
        """
        ...

    @property
    def by_sample(self) -> bool:
        """Whether a test measures each sample for itself, so that several clients' can share its batches."""
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
        """[B] int64, every sample's predictions."""
        ...

    def trim(self, batch: Batch) -> Batch:
        """The same predictions without what only fills samples up.

        Trainers call it on every batch. Losses agree to float32 rounding; where nothing fills up, it is the
        batch itself.
        """
        ...

    def evaluate(self, samples: Pool, batch_size: int) -> Evaluation:
        """Tests the model on these samples, without gradients, `batch_size` at a time."""
        ...
