"""Selectors that look at no numbers: by chance, by place, or everything."""

from __future__ import annotations

import numpy as np

from fedtlu_fast.parts import part
from fedtlu_fast.selection.evidence import Evidence, Mask, Vector
from fedtlu_fast.selection.room import Room
from fedtlu_fast.selection.selector import Ranking, Selector


@part
class Random(Ranking):
    """Blocks drawn without replacement, anew every round: FedTLU's first baseline."""

    def utility(self, evidence: Evidence) -> Vector:
        """Uniform draws."""
        return evidence.uniform()


@part
class Last(Ranking):
    """The blocks nearest the output: FedTLU's second baseline, ``top`` of the client-side paper."""

    def utility(self, evidence: Evidence) -> Vector:
        """Position in the model."""
        return np.tile(np.arange(len(evidence.layout.blocks), dtype=np.float64), (evidence.rows, 1))


@part
class First(Ranking):
    """The blocks nearest the input, ``bottom`` of the client-side paper (arXiv 2408.15600)."""

    def utility(self, evidence: Evidence) -> Vector:
        """Position in the model, from the end."""
        return -Last().utility(evidence)


@part
class Both(Selector):
    """From both ends of the model in turn, output first: a baseline of arXiv 2408.15600."""

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """By how few open blocks lie between a block and the nearer end; ties go to the output's side."""
        place = np.cumsum(room.open) - 1
        from_top = place[-1] - place
        nearness = -np.minimum(2 * from_top, 2 * place + 1).astype(np.float64)
        return room.best(np.tile(nearness, (evidence.rows, 1)))


@part
class Full(Selector):
    """Everything that may be chosen, whatever the budget: plain FedAvg or FedProx on the server."""

    budgeted = False

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """The same for all."""
        return np.tile(room.whole, (evidence.rows, 1))


@part
class Unrestricted(Full):
    """Clients are not restricted: every client trains and sends every block, frozen or not."""
