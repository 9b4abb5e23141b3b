"""Defines what a selector may choose: some blocks of each group on the server, a budget for each client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.selection.agreement.costs import ROUNDING
from fedtlu_fast.selection.evidence import Mask, Vector

SLACK = 1e-9
"""The relative excess over a budget that is tolerated, because costs may be summed in any order."""


class Room(ABC):
    """Says which blocks a selector may choose.

    Attributes:
        open: [B] bool, the blocks that selectors choose from.
        whole: [B] bool, the largest choice that is allowed, for selectors without a budget.
    """

    open: Mask
    whole: Mask

    @abstractmethod
    def best(self, utility: Vector) -> Mask:
        """Returns the best blocks, as many as there is room for, [R, B] bool.

        Args:
            utility: [R, B], larger is better; of equal blocks the earlier one is better.
        """

    @abstractmethod
    def kept(self, mask: Mask) -> bool:
        """Tells whether a choice [R, B] takes no more than there is room for."""


@dataclass(frozen=True)
class ServerRoom(Room):
    """Lets the server choose a fixed number of blocks in each group of like blocks.

    Unique blocks are not open; `select` decides on them by a rule.

    Attributes:
        layout: the model's blocks and groups.
        quotas: the number of blocks to keep in each group.
    """

    layout: ParameterLayout
    quotas: tuple[int, ...]

    @property
    def open(self) -> Mask:  # type: ignore[override]
        """Returns the blocks in groups, [B] bool."""
        found = np.ones(len(self.layout.blocks), np.bool_)
        found[list(self.layout.unique)] = False
        return found

    @property
    def whole(self) -> Mask:  # type: ignore[override]
        """Returns all blocks, unique ones included, [B] bool."""
        return np.ones(len(self.layout.blocks), np.bool_)

    def best(self, utility: Vector) -> Mask:
        """See `Room`; only blocks of one group are compared, and NaN comes last."""
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
        return not full and not bool(mask[:, list(self.layout.unique)].any())


@dataclass(frozen=True)
class ClientRoom(Room):
    """Lets each of C clients choose open blocks within its budget.

    A set of blocks costs the sum of its `costs` plus the largest of its `reach`.

    Attributes:
        open: [B] bool, the blocks that selectors choose from.
        budgets: [C] float64, the budget of each client.
        costs: [B] float64, the cost of each block; 1 if budgets count blocks.
        reach: [B] float64, the cost of the backward pass from the output down to a block, if budgets are
            in FLOPs; else 0.
    """

    open: Mask
    budgets: Vector
    costs: Vector
    reach: Vector

    @property
    def whole(self) -> Mask:  # type: ignore[override]
        """Returns all open blocks, [B] bool."""
        return self.open

    def best(self, utility: Vector) -> Mask:
        """Takes each client's blocks from the best down, every one that still fits the budget (greedy).

        Args:
            utility: [C, B], larger is better; a block with NaN is never taken.
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
    """Tells whether budgets are kept up to rounding errors, so that three blocks of 0.1 fit into 0.3."""
    kept: Mask = spending <= budgets * (1 + ROUNDING)
    return kept
