"""Loss and test of every task that predicts one label for each sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedtlu_fast.data.population import Batch, Pool, whole
from fedtlu_fast.tasks.metrics import ACCURACY, PERPLEXITY, Evaluation, tally


@dataclass(frozen=True)
class Classifier(ABC):
    """Prediction of one of C labels for each sample; a batch is (inputs [B, ...], labels [B] int64)."""

    model: nn.Module
    figures = (ACCURACY, PERPLEXITY)
    by_sample = True

    @property
    def labels(self) -> tuple[str, ...]:
        """[C], names of the labels; without names, tests do not report F1."""
        return ()

    @abstractmethod
    def logits(self, inputs: Tensor) -> Tensor:
        """Returns logits [B, C] float32."""

    def loss(self, batch: Batch) -> Tensor:
        """Returns the mean negative log-likelihood, in nats (scalar)."""
        inputs, labels = batch
        return F.cross_entropy(self.logits(inputs), labels)

    def losses(self, batch: Batch) -> Tensor:
        """Returns [B], each sample's negative log-likelihood, in nats."""
        inputs, labels = batch
        return F.cross_entropy(self.logits(inputs), labels, reduction="none")

    def counts(self, batch: Batch) -> Tensor:
        """Returns [B], 1 for each sample."""
        return torch.ones_like(batch[1])

    def trim(self, batch: Batch) -> Batch:
        """See `Task.trim`. The samples have no padding that could be cut."""
        return batch

    @torch.no_grad()
    def evaluate(self, samples: Pool, batch_size: int) -> Evaluation:
        """See `Task.evaluate`. Labels are counted if they have names."""
        self.model.eval()
        batch = whole(samples)
        losses, chosen = [], []
        for inputs, labels in zip(*(torch.split(part, batch_size) for part in batch), strict=True):
            logits = self.logits(inputs)
            losses.append(F.cross_entropy(logits, labels, reduction="none").double().cpu())
            chosen.append(logits.argmax(dim=1).cpu())
        right, named = batch[1].cpu(), torch.cat(chosen)
        return Evaluation(
            losses=torch.cat(losses),
            counts=self.counts(batch).cpu(),
            totals={"accuracy": (named == right).long()},
            tallies=tally(right, named, len(self.labels)) if self.labels else None,
            labels=self.labels,
        )
