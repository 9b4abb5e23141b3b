"""Classification of feature vectors with a multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedtlu_fast.data.population import Batch
from fedtlu_fast.randomness import torch_seeded
from fedtlu_fast.tasks.metrics import Evaluation


@dataclass(frozen=True)
class Classification:
    """One of C labels for each sample; a batch is (features [B, F], labels [B])."""

    model: nn.Module

    def loss(self, batch: Batch) -> Tensor:
        """Mean negative log-likelihood, in nats (scalar)."""
        features, labels = batch
        return F.cross_entropy(self.model(features), labels)

    def losses(self, batch: Batch) -> Tensor:
        """[B]: each sample's negative log-likelihood, in nats."""
        features, labels = batch
        return F.cross_entropy(self.model(features), labels, reduction="none")

    def counts(self, batch: Batch) -> Tensor:
        """[B] or [K, B]: one each."""
        return torch.ones_like(batch[1])

    def trim(self, batch: Batch) -> Batch:
        """See `Task.trim`. Nothing fills up."""
        return batch

    @torch.no_grad()
    def evaluate(self, batch: Batch, batch_size: int) -> Evaluation:
        """Losses and hits."""
        self.model.eval()
        losses, hits = [], []
        for features, labels in zip(*(torch.split(part, batch_size) for part in batch), strict=True):
            logits = self.model(features)
            losses.append(F.cross_entropy(logits, labels, reduction="none").double().cpu())
            hits.append((logits.argmax(dim=1) == labels).long().cpu())
        return Evaluation(torch.cat(losses), self.counts(batch).cpu(), torch.cat(hits))


def build_mlp(inputs: int, hidden: Sequence[int], outputs: int, seed: int) -> nn.Module:
    """``Linear, ReLU, ..., Linear`` with PyTorch's own initialisation.

    Args:
        inputs: features of a sample.
        hidden: widths of the layers in between; none for a linear model.
        outputs: classes.
        seed: of the initialisation.
    """
    with torch_seeded(seed, "initial weights"):
        layers: list[nn.Module] = []
        for width, following in pairwise([inputs, *hidden, outputs]):
            layers += [nn.Linear(width, following), nn.ReLU()]
        return nn.Sequential(*layers[:-1])
