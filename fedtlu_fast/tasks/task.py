"""The interface of a task."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from fedtlu_fast.data.population import Batch, Pool
from fedtlu_fast.tasks.metrics import Evaluation, Figure


class Task(Protocol):
    """A model and its loss.

    A sample needs one or more predictions (a label, every next token, every word's tag), and a mean loss is a
    mean over predictions, not over samples.
    """

    @property
    def model(self) -> nn.Module:
        """The model whose parameters are trained."""
        ...

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The numbers that tests report in addition to the loss.

        Tables and figures compare runs by the first of them, the headline, or by the loss if there is none.
        """
        ...

    @property
    def by_sample(self) -> bool:
        """Whether tests measure each sample separately, so that a batch may mix several clients' samples."""
        ...

    def loss(self, batch: Batch) -> Tensor:
        """Returns the mean loss over a batch's predictions (differentiable scalar); 0 if it has none."""
        ...

    def losses(self, batch: Batch) -> Tensor:
        """Returns [B], every sample's mean loss over its predictions, differentiable.

        Their mean, weighted by `counts`, is `loss`.
        """
        ...

    def counts(self, batch: Batch) -> Tensor:
        """Returns [B] int64, the number of predictions of every sample."""
        ...

    def trim(self, batch: Batch) -> Batch:
        """Cuts a batch to its longest sample; all predictions stay.

        Trainers call it on every batch. Losses agree to float32 rounding. A batch without padding is returned
        as it is.
        """
        ...

    def evaluate(self, samples: Pool, batch_size: int) -> Evaluation:
        """Tests the model on the samples without gradients, in batches of `batch_size` samples."""
        ...
