"""A selector: Eq. 1, and blocks that were applied in the round before have to beat the others clearly."""

from typing import Annotated

import numpy as np
from pydantic import Field

from fedtlu_fast.parts import part
from fedtlu_fast.selection import Evidence, Ranking


@part
class Steady(Ranking):
    """Ranks by Eq. 1, in favour of blocks that were left out last time.

    Attributes:
        handicap: what the score of a block that was applied in the round before is multiplied by.
    """

    handicap: Annotated[float, Field(gt=0, le=1)] = 0.1
    needs = ("excess",)

    def utility(self, evidence: Evidence) -> np.ndarray:
        """[1, B]: the scores, some of them made smaller."""
        scores = evidence.metrics["excess"]
        if evidence.last_choice is None:
            return scores
        return np.where(evidence.last_choice & (scores > 0), self.handicap * scores, scores)
