"""What a test finds, sample by sample, and the figures that come of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Evaluation:
    """Losses and hits of N samples; everything on the CPU.

    Attributes:
        losses: [N] float64, each sample's mean negative log-likelihood over its predictions, in nats.
        counts: [N] int64, its predictions.
        hits: [N] int64, how many of them were right; None where that is not counted.
        tallies: [3, C] int64 over all samples: for each label, how often it was predicted rightly, how often
            it is true, and how often it was predicted; None likewise.
        labels: names of the C.
    """

    losses: Tensor
    counts: Tensor
    hits: Tensor | None = None
    tallies: Tensor | None = None
    labels: tuple[str, ...] = ()

    @property
    def loss(self) -> Tensor:
        """Mean over predictions (scalar, float64); 0 when there are none."""
        if bool((self.counts == self.counts[0]).all()):
            return self.losses.mean()
        return (self.losses * self.counts).sum() / self.counts.sum()

    @property
    def accuracy(self) -> Tensor | None:
        """Share of the predictions that were right (scalar, float64); 0 when there are none."""
        if self.hits is None:
            return None
        return self.hits.sum().double() / self.counts.sum().clamp(min=1)

    def split(self, sizes: Sequence[int]) -> list[Evaluation]:
        """Consecutive samples apart, without the tallies, which are of all."""
        parts = [torch.split(part, list(sizes)) for part in (self.losses, self.counts)]
        hits = [None] * len(sizes) if self.hits is None else torch.split(self.hits, list(sizes))
        return [Evaluation(*part) for part in zip(*parts, hits, strict=True)]

    def f1(self) -> dict[str, float] | None:
        """F1 of every label that occurs or was predicted; None without tallies.

        ``2 TP / (2 TP + FP + FN)``, of one label against all others.
        """
        if self.tallies is None:
            return None
        right, named = self.tallies[0], self.tallies[1] + self.tallies[2]
        scores = (2 * right.double() / named.clamp(min=1)).tolist()
        present = (named > 0).tolist()
        return {
            label: score for label, score, is_in in zip(self.labels, scores, present, strict=True) if is_in
        }


def tally(truth: Tensor, predicted: Tensor, labels: int) -> Tensor:
    """Counts for `Evaluation.tallies`, which take 24 bytes a label however many there are.

    Args:
        truth: [N] int64, labels from 0.
        predicted: [N] int64.
        labels: C.

    Returns:
        [3, C] int64.
    """
    right = truth[truth == predicted]
    return torch.stack([torch.bincount(own, minlength=labels) for own in (right, truth, predicted)])
