"""Solves budgets in parameters or FLOPs: a knapsack with a fee for the way down to the lowest layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedtlu_fast.selection.agreement.knapsack import knapsacks
from fedtlu_fast.selection.agreement.limits import Floats, Mask

NODES = 4096
"""The number of nodes after which the search for a row's best set ends."""
ROUNDING = 1e-12
"""The relative excess over a budget that still fits, so that 0.1 + 0.2 is within 0.3."""


@dataclass(frozen=True)
class Costs:
    """Limits the cost of a set: the sum of its layers' costs plus the way down to its lowest layer.

    Sets are found by branch and bound (`knapsacks`). They are optimal, unless a row takes more than NODES
    nodes: its set then is the best one found, and `relaxed` bounds what was not searched. No set exceeds its
    budget.

    Attributes:
        budgets: [D], the budget of each row.
        costs: [L], the cost of training each layer.
        reach: [L], non-increasing, the cost of the way from the output down to this layer, paid once.
    """

    budgets: Floats
    costs: Floats
    reach: Floats

    def fits(self, layers: Mask) -> Mask:
        """See `Limits.fits`."""
        spent = np.where(layers, self.costs, 0.0).sum(-1) + np.where(layers, self.reach, 0.0).max(-1)
        fitting: Mask = spent <= self.budgets * (1 + ROUNDING)
        return fitting

    def best_set(self, row: int, values: Floats) -> Mask:
        """See `Limits.best_set`."""
        found: Mask = self._best(values[None], self.budgets[row : row + 1])[0][0]
        return found

    def common(self) -> Costs:
        """See `Limits.common`."""
        return Costs(self.budgets.min(keepdims=True), self.costs, self.reach)

    def best_sets(self, values: Floats) -> Mask:
        """See `Limits.best_sets`."""
        budgets = np.broadcast_to(self.budgets, values.shape[:-1]).reshape(-1)
        return self._best(values.reshape(-1, values.shape[-1]), budgets)[0].reshape(values.shape)

    def relaxed(self, values: Floats) -> tuple[Mask, Floats]:
        """See `Limits.relaxed`; the sets never exceed the budget, but their values may be below the bound."""
        mask, _, upper = self._best(values, self.budgets)
        return mask, upper

    def marginal(self, values: Floats, mask: Mask) -> Floats:
        """Returns what a little more budget would add to the value of each row's set, for each unit of it.

        The way down to the lowest layer of the set counts as paid; layers may be taken in part.

        Args:
            values: [D, L], the value of each layer to each row.
            mask: [D, L], the sets.

        Returns:
            [D], not negative; 0 if all layers of positive value fit.
        """
        layers = len(self.costs)
        lowest = np.where(mask.any(1), mask.argmax(1), layers - 1)[:, None]
        useful = (values > 0) & (np.arange(layers) >= lowest)
        worth = np.divide(values, self.costs, out=np.zeros_like(values), where=useful & (self.costs > 0))
        order = np.argsort(-worth, axis=1, kind="stable")
        spent = np.cumsum(np.where(np.take_along_axis(useful, order, 1), self.costs[order], 0.0), axis=1)
        over = spent > (self.budgets - self.reach[lowest[:, 0]])[:, None]
        first = np.take_along_axis(order, over.argmax(1)[:, None], 1)
        return np.where(over.any(1), np.take_along_axis(worth, first, 1)[:, 0], 0.0)

    def _best(self, values: Floats, budgets: Floats) -> tuple[Mask, Floats, Floats]:
        # Half of what `fits` allows, because it adds up the costs in another order.
        return knapsacks(values, budgets * (1 + ROUNDING / 2), self.costs, self.reach, NODES)
