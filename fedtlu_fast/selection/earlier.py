"""A client selector that knows nothing of the round's clients: it goes by the changes of earlier rounds."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part
from fedtlu_fast.scoring import Pooling
from fedtlu_fast.scoring.block_metrics import aggregate_only
from fedtlu_fast.scoring.units import ScoredLayers
from fedtlu_fast.selection.evidence import Evidence, Mask
from fedtlu_fast.selection.fedtlu import Metric
from fedtlu_fast.selection.room import Room
from fedtlu_fast.selection.selector import EARLIER, LAST_SENT, Selector


@part
class Earlier(Selector):
    """Has all clients train and send the blocks that scored best when they were sent last (ours).

    The server scores the aggregated change of every round, and chooses the blocks of the next round by it. So
    the choice costs no privacy where the change was noisy already, no bytes, and no pass through the model.
    With differential privacy it also spends less: blocks that are not sent get no noise, and those that are
    sent have the clipping norm for themselves.

    Blocks that were never sent come first. A score grows old, since only blocks that are sent are scored
    again. So in a share `explore` of the rounds, drawn at random, the blocks are chosen that were not sent
    for longest.

    Attributes:
        metric: the score of a block in the aggregated change, as in `FedTLU`; one that needs only the
            aggregate.
        explore: the share of rounds with the blocks that were not sent for longest, from 0 to 1.
        ddof: kind of standard deviation in Eq. 1: 0 of a population | 1 of a sample.
        pooling: score of a block: mean (of its layers' scores) | pooled (as one layer).
        scored_layers: layers that make a block's score: all | matrices | vectors (norms and biases).
    """

    metric: Metric = "l2_per_parameter"
    explore: Annotated[float, Field(ge=0, le=1)] = 0.2
    ddof: Literal[0, 1] = 1
    pooling: Pooling = "pooled"
    scored_layers: ScoredLayers = "all"
    same_for_all = True
    needs = (EARLIER, LAST_SENT)

    def __post_init__(self) -> None:
        if not aggregate_only(self.metric):
            expected = "a metric that needs only the aggregated change, such as excess or l2_per_parameter"
            raise InputError("metric", self.metric, expected)

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """Chooses the same blocks in every row."""
        scores, sent = evidence.metrics[EARLIER][:1], evidence.metrics[LAST_SENT][:1]
        known = np.where(np.isnan(scores), np.inf, scores)
        exploring = bool(evidence.generator.random() < self.explore)
        return room.best(np.tile(-sent if exploring else known, (evidence.rows, 1)))
