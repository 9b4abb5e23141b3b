"""Defines client selectors from other papers and libraries."""

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
    """Chooses one block after another, from input to output, for all clients (FedPart, arXiv 2410.21230).

    The full rounds at the beginning are the run's `warmup_rounds`.

    Attributes:
        rounds_per_block: rounds for each block of a cycle (R/L in the paper).
        full_rounds: rounds between two cycles in which every block is trained.
    """

    rounds_per_block: Annotated[int, Field(ge=1)] = 1
    full_rounds: Annotated[int, Field(ge=0)] = 0
    budgeted = False
    same_for_all = True

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """Chooses one open block, or all of them, in every row."""
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
    """Lets each client send each block with a given probability (FedLP, arXiv 2303.06360).

    Attributes:
        probability: probability that a client sends a block: 1 minus the pruning rate of the paper.
    """

    probability: Annotated[float, Field(gt=0, le=1)] = 0.5
    moment = "after_training"
    budgeted = False

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """Draws independently for each block; a client may end up with no open block."""
        return (evidence.uniform() < self.probability) & room.open


@part
class FedLUAR(Selector):
    """Skips blocks that change little relative to their size; their last change is used again.

    FedLUAR (arXiv 2503.11146) draws ``L - budget`` of the L open blocks without replacement, with
    probabilities in inverse proportion to ``||dW|| / ||W||`` of the round before. No client sends the drawn
    blocks.
    """

    moment = "after_training"
    same_for_all = True
    recycles = True
    needs = (LAST_CHANGE,)

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """Chooses the open blocks that were not drawn; all open blocks until some block has changed.

        Raises:
            InputError: The room is the server's, which has no budgets.
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
    """Sends the blocks with the largest changes (FL4Health's dynamic layer exchange by norms)."""

    moment = "by_change"
    needs = ("drift",)
