"""What may be chosen: so many blocks of each group on the server, a budget for each client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.selection.agreement.costs import ROUNDING
from fedtlu_fast.selection.evidence import Mask, Vector

SLACK = 1e-9
"""A budget counts as kept up to this share of it: costs may be added up in any order."""


class Room(ABC):
    """What a selector may choose.

    Attributes:
        open: [B] bool: the blocks that are ranked and chosen among.
        whole: [B] bool: the choice of a selector that goes by no budget and takes everything. No choice may
            hold other blocks.
    """

    open: Mask
    whole: Mask

    @abstractmethod
    def best(self, utility: Vector) -> Mask:
        """[R, B] bool: the best blocks, as many as there is room for; equal ones go to the earlier block.

        Args:
            utility: [R, B], larger is better.
        """

    @abstractmethod
    def kept(self, mask: Mask) -> bool:
        """Whether a choice [R, B] takes no more than there is room for."""


@dataclass(frozen=True)
class ServerRoom(Room):
    """The server's room: so many blocks of each group of like blocks.

    Blocks without a like are outside of it; a rule decides on them (`select`).

    Attributes:
        layout: blocks and groups.
        quotas: blocks to keep in each group.
    """

    layout: ParameterLayout
    quotas: tuple[int, ...]

    @property
    def open(self) -> Mask:  # type: ignore[override]
        """[B] bool: the blocks in groups."""
        found = np.ones(len(self.layout.blocks), np.bool_)
        found[list(self.layout.ungrouped)] = False
        return found

    @property
    def whole(self) -> Mask:  # type: ignore[override]
        """[B] bool: all blocks, those without a like too."""
        return np.ones(len(self.layout.blocks), np.bool_)

    def best(self, utility: Vector) -> Mask:
        """See `Room`; groups are not compared with each other, and NaN comes last."""
        mask = np.zeros(utility.shape, dtype=np.bool_)
        for group, quota in zip(self.layout.groups, self.quotas, strict=True):
            blocks = np.array(group.blocks)
            best = np.argsort(-utility[:, blocks], axis=1, kind="stable")[:, :quota]
            np.put_along_axis(mask, blocks[best], True, axis=1)
        return mask

    def kept(self, mask: Mask) -> bool:
        """See `Room`."""
        counts = [mask[:, list(group.blocks)].sum(axis=1).max(initial=0) for group in self.layout.groups]
        full = any(count > quota for count, quota in zip(counts, self.quotas, strict=True))
        return not full and not bool(mask[:, list(self.layout.ungrouped)].any())


@dataclass(frozen=True)
class ClientRoom(Room):
    """The room of C clients.

    A set of blocks costs the sum of their `costs` and, once, the largest of their `reach`.

    Attributes:
        open: [B] bool: the blocks that are chosen among.
        budgets: [C] float64.
        costs: [B] float64, of each block; 1 each where budgets count blocks.
        reach: [B] float64, of going down to a block (FLOPs of the backward pass); else 0.
    """

    open: Mask
    budgets: Vector
    costs: Vector
    reach: Vector

    @property
    def whole(self) -> Mask:  # type: ignore[override]
        """[B] bool: all open blocks."""
        return self.open

    def best(self, utility: Vector) -> Mask:
        """Down each client's ranks, taking every block that still fits; a block of utility NaN is not taken.

        Args:
            utility: [C, B], larger is better.
        """
        usable = self.open & ~np.isnan(utility)
        order = np.argsort(-np.where(usable, utility, -np.inf), axis=1, kind="stable")
        mask = np.zeros(utility.shape, np.bool_)
        rows = np.arange(len(utility))
        spent, deepest = np.zeros(len(utility)), np.zeros(len(utility))
        for column in order.T:
            spending = spent + self.costs[column]
            depth = np.maximum(deepest, self.reach[column])
            taken = usable[rows, column] & within(spending + depth, self.budgets)
            mask[rows[taken], column[taken]] = True
            spent, deepest = np.where(taken, spending, spent), np.where(taken, depth, deepest)
        return mask

    def kept(self, mask: Mask) -> bool:
        """See `Room`."""
        depth = np.where(mask, self.reach, 0.0).max(axis=1, initial=0.0)
        spent = np.where(mask, self.costs, 0.0).sum(axis=1) + depth
        fits = bool((spent <= self.budgets * (1 + SLACK)).all())
        return fits and not bool((mask & ~self.open).any())


def within(spending: Vector, budgets: Vector) -> Mask:
    """Whether a budget is kept, but for rounding: three blocks of 0.1 fit into 0.3."""
    kept: Mask = spending <= budgets * (1 + ROUNDING)
    return kept
