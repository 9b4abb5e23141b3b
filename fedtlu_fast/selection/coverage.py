"""A selector that comes back to blocks that were not applied for long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedtlu_fast.parts import part
from fedtlu_fast.selection.evidence import Evidence, Mask, Vector
from fedtlu_fast.selection.over_rounds import OverRounds, group_ranks, remembered


@part
class Coverage(OverRounds):
    """Chooses by the mean rank of a block, with a bonus for blocks that were rarely applied (ours).

    The score of block b, when t targeted rounds were made and n_b of them applied the block, is

        (mean rank of b) + exploration * sqrt(log(t + 1) / (n_b + 1)),

    where a rank is that within the block's group by the metric (`over_rounds.group_ranks`), and the mean is
    over this round and all targeted ones before it in which the block could be ranked. A block that cannot be
    ranked in this round comes last.

    A ranking by a score applies the same blocks again and again if the score tells blocks apart by what they
    are rather than by what the round did to them; the others then stay as the warm-up left them. The bonus
    has the form of the upper confidence bound of bandits, and bounds how long this can go on: it grows
    without limit for a block that is not applied, and falls towards 0 for one that is applied all the time.
    So with ``exploration`` above 0 every block that can be ranked is applied again and again, ever more
    rarely the worse its rank is. It is no confidence bound: the server sees the ranks of all blocks in every
    round, and only what applying them does to the model remains unseen.

    The wait grows exponentially with the square of d / exploration, if the mean rank of a block is behind by
    d. By a score that never changes, the worst of 4 blocks of which 1 is kept is applied for the first time
    in targeted round 5 with ``exploration=2``, 8 with 1, 32 with 0.5, and after more than 3000 with 0.25; the
    worst of 12 of which 2 are kept in round 7, 13 and 64. Short runs need a large ``exploration``. With 0 the
    choice is that of the mean rank.

    Attributes:
        exploration: factor of the bonus, 0 or more; ranks are from 0 to 1.
    """

    exploration: Annotated[float, Field(ge=0)] = 0.5

    def utility(self, evidence: Evidence) -> Vector:
        """Returns the score of each block, [R, B]; NaN if it cannot be ranked in this round."""
        ranks = self._ranks(evidence)
        total, seen = self._sums(evidence, ranks)
        found: Vector = np.full(ranks.shape, np.nan)
        np.divide(total, seen, out=found, where=~np.isnan(ranks))
        rounds, applied = remembered(evidence, "rounds"), remembered(evidence, "applied")
        return found + self.exploration * np.sqrt(np.log1p(rounds) / (applied + 1))

    def remembers(self, evidence: Evidence, applied: Mask) -> Mapping[str, Tensor]:
        """Returns sums over the targeted rounds, each [B] float64.

        They are of the block's ranks (``total``), of the rounds in which it could be ranked (``seen``), in
        which it was applied (``applied``), and of all rounds (``rounds``).
        """
        total, seen = self._sums(evidence, self._ranks(evidence))
        sums = {
            "total": total[0],
            "seen": seen[0],
            "applied": remembered(evidence, "applied") + applied,
            "rounds": remembered(evidence, "rounds") + 1,
        }
        return {name: torch.from_numpy(own) for name, own in sums.items()}

    def _ranks(self, evidence: Evidence) -> Vector:
        return group_ranks(self.values(evidence), evidence.layout)

    def _sums(self, evidence: Evidence, ranks: Vector) -> tuple[Vector, Vector]:
        """The sum of each block's ranks, and their number, after this round, two of [R, B]."""
        there = ~np.isnan(ranks)
        total = remembered(evidence, "total") + np.where(there, ranks, 0.0)
        return total, remembered(evidence, "seen") + there
