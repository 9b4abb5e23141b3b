"""The benefit of each block in a round, beside what every score says of the block (ours).

The benefit is the decrease of the loss on the server's held-out samples if the round applied this block alone
(besides the blocks that every round applies). It does not depend on which blocks the round goes on to apply,
so that all scores are judged by the same rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.scoring import Pooling
from fedtlu_fast.scoring.block_metrics import Change, measure
from fedtlu_fast.scoring.units import ScoredLayers, scored_layout


@dataclass(frozen=True)
class RecordedScore:
    """A score that is recorded beside the benefit.

    Attributes:
        metric: the name of the metric.
        pooling: how the values of a block's layers are combined.
        scored_layers: the layers that count.
    """

    metric: str
    pooling: Pooling = "mean"
    scored_layers: ScoredLayers = "all"

    @property
    def name(self) -> str:
        """The metric's name, and what is not as by default: ``excess, pooled``."""
        others = [value for value in (self.pooling, self.scored_layers) if value not in ("mean", "all")]
        return ", ".join([self.metric, *others])


@dataclass(frozen=True)
class Benefit:
    """What one round knows about its blocks.

    Attributes:
        before: the held-out loss if only the blocks were applied that every round applies.
        alone: the held-out loss if one block was applied beside them, by the index of the block.
        every: the held-out loss if all blocks were applied.
        scores: [B] float64 of each score that the model has, by the score's name.
    """

    before: float
    alone: dict[int, float]
    every: float
    scores: dict[str, Tensor]

    def row(self, layout: ParameterLayout) -> dict[str, Any]:
        """Returns it for a line of selection.jsonl, with the blocks by name."""
        names = [layout.blocks[index].name for index in self.alone]
        return {
            "before": self.before,
            "every": self.every,
            "alone": dict(zip(names, self.alone.values(), strict=True)),
            "scores": {
                score: dict(zip(names, values[list(self.alone)].tolist(), strict=True))
                for score, values in self.scores.items()
            },
        }


def benefit_of(change: Change, recorded: Sequence[RecordedScore]) -> Benefit | None:
    """Returns the benefit of every block of a group, and its scores; None if nothing is to be recorded.

    Args:
        change: the aggregated change, with the facts that the scores need and the held-out losses.
        recorded: the scores.
    """
    if not recorded or change.held_out is None:
        return None
    blocks = [block for group in change.layout.groups for block in group.blocks]
    loss = change.held_out.loss
    return Benefit(
        before=loss(()),
        alone={block: loss((block,)) for block in sorted(blocks)},
        every=loss(blocks),
        scores={score.name: found for score in recorded if (found := _score(change, score)) is not None},
    )


def _score(change: Change, score: RecordedScore) -> Tensor | None:
    """The score of every block, [B]; None if the blocks have no such layers."""
    try:
        scored = scored_layout(change.layout, score.scored_layers)
    except InputError:
        return None
    return measure(score.metric, replace(change, pooling=score.pooling, scored=scored)).blocks
