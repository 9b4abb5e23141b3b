"""Defines selectors that look at no numbers: they choose by chance, by position, or everything."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.parts import part
from fedtlu_fast.selection.evidence import Evidence, Mask, Vector
from fedtlu_fast.selection.room import Room
from fedtlu_fast.selection.selector import Ranking, Selector


@part
class Random(Ranking):
    """Draws blocks without replacement, anew in every round (the first baseline of FedTLU's paper)."""

    def utility(self, evidence: Evidence) -> Vector:
        """Returns uniform draws, [R, B]."""
        return evidence.uniform()


@part
class Last(Ranking):
    """Chooses the blocks nearest the output (the second baseline of FedTLU's paper).

    This is ``top`` of the client-side paper (arXiv 2408.15600).
    """

    def utility(self, evidence: Evidence) -> Vector:
        """Returns each block's position in the model, counted from the input, [R, B]."""
        return np.tile(np.arange(len(evidence.layout.blocks), dtype=np.float64), (evidence.rows, 1))


@part
class First(Ranking):
    """Chooses the blocks nearest the input (``bottom`` of arXiv 2408.15600)."""

    def utility(self, evidence: Evidence) -> Vector:
        """Returns the negative of each block's position, [R, B]."""
        return -Last().utility(evidence)


@part
class Always(Ranking):
    """Chooses the same blocks in every round, to find the best fixed choice afterwards (ours).

    Attributes:
        position: the place of the first block among those of its group, from 0 at the input; the others are
            those behind it, and go on at the input after the last.
    """

    position: Annotated[int, Field(ge=0)] = 0

    def utility(self, evidence: Evidence) -> Vector:
        """Returns how soon each block comes, counted from `position`, [R, B].

        Raises:
            InputError: A group has no block at this place.
        """
        self.check_layout(evidence.layout)
        found = np.zeros(len(evidence.layout.blocks))
        for group in evidence.layout.groups:
            for place, block in enumerate(group.blocks):
                found[block] = -((place - self.position) % len(group.blocks))
        return np.tile(found, (evidence.rows, 1))

    def check_layout(self, layout: ParameterLayout) -> None:
        """Refuses a position that some group does not have; raises `InputError`."""
        smallest = min(layout.groups, key=lambda group: len(group.blocks), default=None)
        if smallest is not None and self.position >= (size := len(smallest.blocks)):
            expected = f"at most {size - 1}: group {smallest.name} has {size} blocks, counted from 0"
            fix = f"The last place is selection.selector=always:{size - 1}."
            raise InputError("position", self.position, expected, fix)


@part
class Both(Selector):
    """Chooses blocks from both ends of the model in turn, the output first (arXiv 2408.15600's baseline)."""

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """Ranks open blocks by their distance to the nearer end; at equal distance the output's side wins."""
        place = np.cumsum(room.open) - 1
        from_top = place[-1] - place
        nearness = -np.minimum(2 * from_top, 2 * place + 1).astype(np.float64)
        return room.best(np.tile(nearness, (evidence.rows, 1)))


@part
class Full(Selector):
    """Chooses every block that may be chosen, without a budget; on the server this is plain FedAvg."""

    budgeted = False

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """Returns `Room.whole` in every row."""
        return np.tile(room.whole, (evidence.rows, 1))


@part
class Unrestricted(Full):
    """Restricts no client: every client trains and sends every block, frozen blocks included."""
