"""A selector that averages the blocks' scores over rounds, the last ones most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedtlu_fast.parts import part
from fedtlu_fast.selection.evidence import Evidence, Mask, Vector
from fedtlu_fast.selection.over_rounds import OverRounds, group_ranks, remembered


@part
class Smoothed(OverRounds):
    """Chooses the blocks with the best exponential mean of a metric over the targeted rounds (ours).

    One round's score of a block is noisy, since it comes from a few clients' batches. The mean of a block's
    numbers x_1, ..., x_n, of this round and of the ones before it, is

        sum_i decay^(n - i) x_i / sum_i decay^(n - i),

    which is Adam's moment with its correction for the start at zero; about 1 / (1 - decay) rounds count. With
    ``decay=0`` the choice is that of FedTLU.

    By default the numbers are ranks within the block's group, not values. Eq. 1 has no scale that rounds
    share: it is a squared ratio, and differs by orders of magnitude from round to round, mostly for all
    blocks at once. The round with the largest values would then decide alone until its weight has decayed. Of
    ranks every round counts the same; what is lost is by how much a block was ahead. ``mean_of=values`` is
    for metrics whose values compare between rounds, such as ``agreement``, which is at most 1.

    A block that cannot be ranked in a round (see `OverRounds.values`) comes last in it: nothing of it could
    be applied. The round does not count for its mean, which it keeps.

    Attributes:
        decay: weight of a round relative to the round after it, from 0 (no memory) to below 1.
        mean_of: what is averaged: ranks (within a group, from 0 to 1) | values (of the metric).
    """

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    mean_of: Literal["ranks", "values"] = "ranks"

    def utility(self, evidence: Evidence) -> Vector:
        """Returns the mean of each block, this round included, [R, B]; NaN if it cannot be ranked now."""
        seen = self._seen(evidence)
        total, weight = self._moments(evidence, seen)
        found: Vector = np.full(seen.shape, np.nan)
        np.divide(total, weight, out=found, where=~np.isnan(seen))
        return found

    def remembers(self, evidence: Evidence, applied: Mask) -> Mapping[str, Tensor]:
        """Returns the weighted sum of each block's numbers (``total``), and of their weights, [B] float64."""
        total, weight = self._moments(evidence, self._seen(evidence))
        return {"total": torch.from_numpy(total[0]), "weight": torch.from_numpy(weight[0])}

    def _seen(self, evidence: Evidence) -> Vector:
        values = self.values(evidence)
        return group_ranks(values, evidence.layout) if self.mean_of == "ranks" else values

    def _moments(self, evidence: Evidence, seen: Vector) -> tuple[Vector, Vector]:
        """The sums after this round, two of [R, B]; those of a block that is not seen stay as they are."""
        there = ~np.isnan(seen)
        share = np.where(there, 1 - self.decay, 0.0)
        total = (1 - share) * remembered(evidence, "total") + share * np.where(there, seen, 0.0)
        return total, (1 - share) * remembered(evidence, "weight") + share
