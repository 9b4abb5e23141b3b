"""Upper bounds of P1 by Lagrangian relaxation, and the counts that they suggest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from fedtlu_fast.selection.agreement.limits import Counts, Floats, Mask
from fedtlu_fast.selection.agreement.problem import Problem

PATIENCE = 15
"""Steps without a better bound after which the step is made smaller."""
SHRINK = 0.6


class Relaxation(Protocol):
    """P1 with some constraint replaced by prices; for any prices its optimum is not below that of P1."""

    prices: Floats
    """To begin with."""

    def solve(self, prices: Floats) -> tuple[float, Floats, Floats]:
        """The optimum at these prices, its slope by them, and how many train each layer [L]."""
        ...

    def allowed(self, prices: Floats) -> Floats:
        """The nearest prices that make sense."""
        ...


def agree(problem: Problem, worth: Floats) -> tuple[Floats, Mask, Floats]:
    """Each layer by itself, without budgets: max over sets A of clients of worth(A) - lam |A| (N - |A|).

    Only |A| matters beside the worth, so that the best A is the first so many by worth.

    Args:
        problem: for weights and lam.
        worth: [D, L], of one client of a row.

    Returns:
        [L] maxima, [D, L] the clients, [L] their number.
    """
    # [L, D] in memory: each layer's clients side by side.
    costs = np.ascontiguousarray(-worth.T)
    order = np.argsort(costs, axis=1, kind="stable")
    weights = problem.weights[order]
    count = np.cumsum(weights, axis=1)
    value = np.cumsum(-np.take_along_axis(costs, order, 1) * weights, axis=1)
    value -= problem.lam * count * (problem.clients - count)
    last = value.argmax(1)[:, None]
    best = np.take_along_axis(value, last, 1)
    some = best > 0
    chosen = np.empty(costs.shape, dtype=np.bool_)
    np.put_along_axis(chosen, order, (np.arange(len(worth)) <= last) & some, 1)
    counts = np.where(some, np.take_along_axis(count, last, 1), 0.0)
    return np.maximum(best, 0.0)[:, 0], chosen.T, counts[:, 0]


class PricedBudgets:
    """A layer costs a client its price, and budgets are dropped; for budgets in layers.

    As good as the linear relaxation with a variable for every pair of clients and layer, which is nearly
    always tight; one evaluation sorts each layer's clients.
    """

    def __init__(self, problem: Problem, limits: Counts) -> None:
        self.problem, self.budgets = problem, limits.budgets
        layers = problem.gains.shape[1]
        # At lam = 0 any price between the last layer that fits and the next one is right.
        falling = np.sort(problem.gains, axis=1)[:, ::-1]
        spare = np.minimum(limits.budgets, layers - 1)[:, None]
        after = np.take_along_axis(falling, spare, 1)[:, 0]
        self.prices: Floats = np.where(limits.budgets < layers, np.maximum(after, 0.0), 0.0)

    def solve(self, prices: Floats) -> tuple[float, Floats, Floats]:
        """See `Relaxation.solve`."""
        best, chosen, counts = agree(self.problem, self.problem.gains - prices[:, None])
        weights = self.problem.weights
        slope = weights * (self.budgets - np.count_nonzero(chosen, axis=1))
        return float(best.sum() + (weights * prices * self.budgets).sum()), slope, counts

    def allowed(self, prices: Floats) -> Floats:
        """Not negative."""
        return np.maximum(prices, 0.0)


class PricedLayers:
    """Each client buys its set within its budget, and layers sell to whom they like: prices make them meet.

    For budgets of any kind; as good as the hull of the clients' sets (Lagrangian decomposition).
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.prices: Floats = problem.gains

    def solve(self, prices: Floats) -> tuple[float, Floats, Floats]:
        """See `Relaxation.solve`."""
        best, chosen, counts = agree(self.problem, self.problem.gains - prices)
        weights = self.problem.weights
        bought, worth = self.problem.limits.relaxed(prices)
        slope = weights[:, None] * (bought.astype(np.float64) - chosen)
        return float(best.sum() + weights @ worth), slope, counts

    def allowed(self, prices: Floats) -> Floats:
        """Any."""
        return prices


class Bound:
    """The least upper bound found so far, lowered step by step (Polyak's subgradient steps)."""

    def __init__(self, problem: Problem) -> None:
        limits = problem.limits
        self._relaxation: Relaxation = (
            PricedBudgets(problem, limits) if isinstance(limits, Counts) else PricedLayers(problem)
        )
        self._prices = self._best_prices = self._relaxation.prices
        self._factor, self._since = 1.0, 0
        self.value, self.steps, self.done = np.inf, 0, False

    def lower(self, steps: int, reached: float) -> Iterator[Floats]:
        """So many steps, or fewer when there is no way down any more.

        Args:
            steps: how many.
            reached: the best objective so far, which the steps aim at.

        Yields:
            After each, how many train each layer in the relaxation, [L].
        """
        for _ in range(steps):
            if self.done:
                return
            yield self._step(reached)

    def _step(self, reached: float) -> Floats:
        value, slope, counts = self._relaxation.solve(self._prices)
        self.steps += 1
        if value < self.value:
            self.value, self._best_prices, self._since = value, self._prices, 0
        else:
            self._since += 1
        # Along the border of what is allowed there is no way down.
        slope = np.where(self._relaxation.allowed(self._prices - slope) == self._prices, 0.0, slope)
        length = float((slope * slope).sum())
        self.done = length == 0 or value <= reached
        if self.done:
            return counts
        if self._since > PATIENCE:
            # Again from the best prices, by smaller steps.
            self._factor, self._since = self._factor * SHRINK, 0
            self._prices = self._best_prices
        else:
            step = self._factor * (value - reached) / length
            self._prices = self._relaxation.allowed(self._prices - step * slope)
        return counts
