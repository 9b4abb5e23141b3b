"""Adds a selector that ranks by Eq. 1 but prefers blocks that were not applied in the round before."""

from typing import Annotated

import numpy as np
from pydantic import Field

from fedtlu_fast.parts import part
from fedtlu_fast.selection import Evidence, Ranking


@part
class Steady(Ranking):
    """Ranks by Eq. 1 in favour of blocks that were left out in the round before.

    Attributes:
        handicap: factor on the score of a block that was applied in the round before, in (0, 1].
    """

    handicap: Annotated[float, Field(gt=0, le=1)] = 0.1
    needs = ("excess",)

    def utility(self, evidence: Evidence) -> np.ndarray:
        """Returns the scores, [1, B], reduced for the blocks of the round before."""
        scores = evidence.metrics["excess"]
        if evidence.last_choice is None:
            return scores
        return np.where(evidence.last_choice & (scores > 0), self.handicap * scores, scores)
