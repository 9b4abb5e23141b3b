"""What a test finds, sample by sample, and the figures that are reported of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Figure:
    """A number that tests report, and how to read it.

    Attributes:
        name: in the logs it is ``test_<name>`` for the global test and ``local_<name>`` for the clients' own.
        better: whether higher or lower numbers are better.
        title: what tables and pictures call it.
        percent: whether it is a share, which is shown in per cent.
    """

    name: str
    better: Better
    title: str
    percent: bool = False

    @property
    def column(self) -> str:
        """Its name in rows and summaries, for the global test."""
        return f"test_{self.name}"

    @property
    def scale(self) -> float:
        """What a value is multiplied by to be shown."""
        return 100.0 if self.percent else 1.0

    @property
    def label(self) -> str:
        """The title with its unit or direction: ``accuracy, %``, ``perplexity (lower is better)``."""
        usual = self.percent and self.better == "higher"
        return f"{self.title}, %" if usual else f"{self.title} ({self.better} is better)"

    def gain(self, own: float, other: float) -> float | None:
        """How much better a value is than another, in per cent of the other; None where that is 0."""
        better = own - other if self.better == "higher" else other - own
        return 100 * better / abs(other) if other else None

    def facts(self) -> dict[str, str | bool]:
        """The figure as summaries describe it, beside its name."""
        return {"better": self.better, "title": self.title, "percent": self.percent}


LOSS = Figure("loss", "lower", "loss")
PERPLEXITY = Figure("perplexity", "lower", "perplexity")
ACCURACY = Figure("accuracy", "higher", "accuracy", percent=True)


@dataclass(frozen=True)
class Evaluation:
    """Losses and other measurements of N samples; everything on the CPU.

    Attributes:
        losses: [N] float64, each sample's mean loss over its predictions; of our own tasks the negative
            log-likelihood in nats.
        counts: [N] int64, its predictions.
        totals: for each figure beside the loss, by name, [N]: the sum over the predictions of each sample,
            such as how many of them were right. The figure is the mean over all predictions.
        tallies: [3, C] int64 over all samples: for each label, how often it was predicted rightly, how often
            it is true, and how often it was predicted; None where that is not counted.
        labels: names of the C.
    """

    losses: Tensor
    counts: Tensor
    totals: Mapping[str, Tensor] = field(default_factory=dict)
    tallies: Tensor | None = None
    labels: tuple[str, ...] = ()

    @property
    def loss(self) -> Tensor:
        """Mean over predictions (scalar, float64); 0 when there are none."""
        if bool((self.counts == self.counts[0]).all()):
            return self.losses.mean()
        return (self.losses * self.counts).sum() / self.counts.sum()

    @property
    def means(self) -> dict[str, Tensor]:
        """Every figure of `totals`: its mean over predictions (scalar, float64); 0 when there are none."""
        predictions = self.counts.sum().clamp(min=1)
        return {name: total.sum().double() / predictions for name, total in self.totals.items()}

    def split(self, sizes: Sequence[int]) -> list[Evaluation]:
        """Consecutive samples apart, without the tallies, which are of all."""
        losses, counts = (torch.split(part, list(sizes)) for part in (self.losses, self.counts))
        totals = {name: torch.split(total, list(sizes)) for name, total in self.totals.items()}
        return [
            Evaluation(losses[at], counts[at], {name: parts[at] for name, parts in totals.items()})
            for at in range(len(sizes))
        ]

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


def perplexity(loss: float | None) -> float | None:
    """exp(loss), the number language models are compared by; infinite when that overflows."""
    if loss is None:
        return None
    return math.exp(loss) if loss < 700 else math.inf
