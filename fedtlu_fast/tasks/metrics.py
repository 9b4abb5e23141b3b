"""The results of a test, sample by sample, and the figures that are reported."""

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
    """A number that tests report, with its title and its direction.

    Attributes:
        name: its name. Logs call it ``test_<name>`` for the global test and ``local_<name>`` for the clients'
            own.
        better: whether higher or lower numbers are better.
        title: its title in tables and figures.
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
        """The factor by which a value is multiplied before it is shown."""
        return 100.0 if self.percent else 1.0

    @property
    def label(self) -> str:
        """The title with its unit or direction: ``accuracy, %``, ``perplexity (lower is better)``."""
        usual = self.percent and self.better == "higher"
        return f"{self.title}, %" if usual else f"{self.title} ({self.better} is better)"

    def gain(self, own: float, other: float) -> float | None:
        """Returns by how much `own` is better than `other`, in per cent of `other`; None if `other` is 0."""
        better = own - other if self.better == "higher" else other - own
        return 100 * better / abs(other) if other else None

    def shown_gain(self, own: float, other: float) -> float | None:
        """Returns the gain as tables show it: of a share in points, of other figures as `gain` does."""
        if not self.percent:
            return self.gain(own, other)
        return 100 * (own - other if self.better == "higher" else other - own)

    def facts(self) -> dict[str, str | bool]:
        """Returns the figure's attributes other than its name, for a run's summary."""
        return {"better": self.better, "title": self.title, "percent": self.percent}


LOSS = Figure("loss", "lower", "loss")
PERPLEXITY = Figure("perplexity", "lower", "perplexity")
ACCURACY = Figure("accuracy", "higher", "accuracy", percent=True)


@dataclass(frozen=True)
class Evaluation:
    """Losses and other measurements of N samples; all tensors are on the CPU.

    Attributes:
        losses: [N] float64, each sample's mean loss over its predictions; in our own tasks the negative
            log-likelihood in nats.
        counts: [N] int64, each sample's number of predictions.
        totals: for each figure other than the loss, by name, [N], the sum over each sample's predictions,
            such as the number of correct ones. The figure is the mean over all predictions.
        tallies: [3, C] int64 over all samples, the number of times that each label was predicted correctly,
            is true, and was predicted; None: the task does not count them.
        labels: [C], names of the labels.
    """

    losses: Tensor
    counts: Tensor
    totals: Mapping[str, Tensor] = field(default_factory=dict)
    tallies: Tensor | None = None
    labels: tuple[str, ...] = ()

    @property
    def loss(self) -> Tensor:
        """The mean loss over all predictions (float64 scalar); 0 if there are none."""
        if bool((self.counts == self.counts[0]).all()):
            return self.losses.mean()
        return (self.losses * self.counts).sum() / self.counts.sum()

    @property
    def means(self) -> dict[str, Tensor]:
        """The mean of each figure of `totals` over all predictions (float64 scalar); 0 if there are none."""
        predictions = self.counts.sum().clamp(min=1)
        return {name: total.sum().double() / predictions for name, total in self.totals.items()}

    @staticmethod
    def joined(parts: Sequence[Evaluation]) -> Evaluation:
        """The samples of all parts, one part after another, without tallies; the reverse of `split`."""
        return Evaluation(
            losses=torch.cat([one.losses for one in parts]),
            counts=torch.cat([one.counts for one in parts]),
            totals={name: torch.cat([one.totals[name] for one in parts]) for name in parts[0].totals},
        )

    def split(self, sizes: Sequence[int]) -> list[Evaluation]:
        """Splits it into evaluations of consecutive samples, without the tallies, which are sums over all.

        Args:
            sizes: number of samples of each; they add up to N.
        """
        losses, counts = (torch.split(part, list(sizes)) for part in (self.losses, self.counts))
        totals = {name: torch.split(total, list(sizes)) for name, total in self.totals.items()}
        return [
            Evaluation(losses[at], counts[at], {name: parts[at] for name, parts in totals.items()})
            for at in range(len(sizes))
        ]

    def f1(self) -> dict[str, float] | None:
        """Returns the F1 of every label that occurs or was predicted; None without tallies.

        It is ``2 TP / (2 TP + FP + FN)`` of one label against all others.
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
    """Counts labels for `Evaluation.tallies`; the counts take 24 bytes for each label.

    Args:
        truth: [N] int64, the true labels, from 0.
        predicted: [N] int64, the predicted labels, from 0.
        labels: C, the number of labels.

    Returns:
        [3, C] int64.
    """
    right = truth[truth == predicted]
    return torch.stack([torch.bincount(own, minlength=labels) for own in (right, truth, predicted)])


def perplexity(loss: float | None) -> float | None:
    """Returns exp(loss), by which language models are compared; infinite if it overflows, None for None."""
    if loss is None:
        return None
    return math.exp(loss) if loss < 700 else math.inf
