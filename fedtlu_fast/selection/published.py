"""Client selectors of other papers and libraries."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part
from fedtlu_fast.selection.evidence import Evidence, Mask
from fedtlu_fast.selection.room import ClientRoom, Room
from fedtlu_fast.selection.selector import LAST_CHANGE, Ranking, Selector


@part
class FedPart(Selector):
    """One block after another, from input to output, the same for all clients (FedPart, arXiv 2410.21230).

    Its first full rounds are the run's `warmup_rounds`.

    Attributes:
        rounds_per_block: rounds for each block of a cycle (R/L of the paper).
        full_rounds: rounds of everything between two cycles.
    """

    rounds_per_block: Annotated[int, Field(ge=1)] = 1
    full_rounds: Annotated[int, Field(ge=0)] = 0
    budgeted = False
    same_for_all = True

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """One block in every row, or all of them."""
        blocks = np.flatnonzero(room.open)
        partial = self.rounds_per_block * len(blocks)
        place = (evidence.round - evidence.warmup_rounds - 1) % max(1, partial + self.full_rounds)
        row = room.open.copy()
        if place < partial:
            row[:] = False
            row[blocks[place // self.rounds_per_block]] = True
        return np.tile(row, (evidence.rows, 1))


@part
class FedLP(Selector):
    """Each client sends each block with a given chance (FedLP, arXiv 2303.06360).

    Attributes:
        probability: chance that a block is sent: 1 less the paper's pruning rate.
    """

    probability: Annotated[float, Field(gt=0, le=1)] = 0.5
    moment = "after_training"
    budgeted = False

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """Independent draws; a client may send no open block."""
        return (evidence.uniform() < self.probability) & room.open


@part
class FedLUAR(Selector):
    """Blocks that move least for their size are not sent: their last change is used again.

    FedLUAR (arXiv 2503.11146): of the L open blocks, ``L - budget`` are drawn without replacement with
    chances in inverse proportion to ``||dW|| / ||W||`` of the round before. The choice holds for all clients.
    """

    moment = "after_training"
    same_for_all = True
    recycles = True
    needs = (LAST_CHANGE,)

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """All open blocks until there has been a change.

        Raises:
            InputError: the room is the server's, which has no budgets.
        """
        if not isinstance(room, ClientRoom):
            raise InputError("selector", "fedluar", "a selector for the server; this one is for clients")
        row, change = room.open.copy(), evidence.metrics[LAST_CHANGE][0]
        movers = np.flatnonzero(room.open & (change > 0))
        skipped = min(len(movers), max(0, int(room.open.sum()) - int(room.budgets[0])))
        if skipped:
            chances = 1 / change[movers]
            drawn = evidence.generator.choice(movers, skipped, replace=False, p=chances / chances.sum())
            row[drawn] = False
        return np.tile(row, (evidence.rows, 1))


@part
class Drift(Ranking):
    """The blocks that moved furthest are sent: FL4Health's dynamic layer exchange by norms."""

    moment = "by_change"
    needs = ("drift",)
