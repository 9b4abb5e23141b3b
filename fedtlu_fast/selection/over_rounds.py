"""What selectors share that look at a metric over several rounds: which values count, and ranks in groups."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

import numpy as np

from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.parts import part
from fedtlu_fast.scoring import Pooling
from fedtlu_fast.scoring.units import ScoredLayers
from fedtlu_fast.selection.evidence import Evidence, Vector
from fedtlu_fast.selection.fedtlu import ByMetric, Metric


@part
class OverRounds(ByMetric):
    """Ranks by a metric over several rounds; the base of `Smoothed` and `Coverage`.

    Attributes:
        metric: score of a block; see `FedTLU`.
        ddof: kind of standard deviation in Eq. 1: 0 of a population | 1 of a sample; the paper does not say.
        pooling: score of a block: mean (of its layers' scores) | pooled (as one layer).
        scored_layers: layers that make a block's score: all | matrices | vectors (norms and biases); chosen
            blocks are applied whole.
    """

    metric: Metric = "excess"
    ddof: Literal[0, 1] = field(default=1, kw_only=True)
    pooling: Pooling = field(default="mean", kw_only=True)
    scored_layers: ScoredLayers = field(default="all", kw_only=True)

    def values(self, evidence: Evidence) -> Vector:
        """Returns the metric's values of this round, [R, B]; NaN for a block that cannot be ranked.

        A block cannot be ranked if its value is NaN or infinite, or -1, which metrics give a block without
        change or with NaN or Inf in it (`BlockValues`).
        """
        found = evidence.metrics[self.metric]
        return np.where(np.isfinite(found) & (found != -1), found, np.nan)


def group_ranks(values: Vector, layout: ParameterLayout) -> Vector:
    """Ranks each block among those of its group: the share of them that it beats, half of the equal ones.

    Of n blocks without ties, the worst has 1 / 2n and the best 1 - 1 / 2n. The mean over the n blocks is
    always 1/2, so that ranks of groups, and of rounds in which fewer blocks can be ranked, compare.

    Args:
        values: [R, B], larger is better; NaN for blocks that cannot be ranked.
        layout: the model's groups.

    Returns:
        [R, B] in (0, 1); NaN for blocks that cannot be ranked, and for blocks that are in no group.
    """
    ranks = np.full(values.shape, np.nan)
    for group in layout.groups:
        own = values[:, list(group.blocks)]
        beaten = (own[:, None, :] < own[:, :, None]).sum(axis=2)
        equal = (own[:, None, :] == own[:, :, None]).sum(axis=2)  # NaN equals nothing
        there = (~np.isnan(own)).sum(axis=1, keepdims=True)
        found = (beaten + equal / 2) / np.maximum(there, 1)
        ranks[:, list(group.blocks)] = np.where(np.isnan(own), np.nan, found)
    return ranks


def remembered(evidence: Evidence, name: str) -> Vector:
    """Returns a number that is remembered of each block, [B] float64; zeros in the first targeted round."""
    held = evidence.memory.get(name)
    return np.zeros(len(evidence.layout.blocks)) if held is None else held.double().numpy()
