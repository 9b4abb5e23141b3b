"""Computes upper bounds of P1 by Lagrangian relaxation, and the clients per layer that they suggest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedtlu_fast.selection.agreement.costs import Costs
from fedtlu_fast.selection.agreement.limits import Counts, Floats, Mask
from fedtlu_fast.selection.agreement.prices import prices_of
from fedtlu_fast.selection.agreement.problem import Problem


@dataclass(frozen=True)
class Pace:
    """Says how a relaxation's prices move.

    Attributes:
        patience: the number of steps without a better bound after which the steps become shorter.
        shrink: the factor by which they do.
        averaged: whether a step goes in the mean direction of its gradient and of the step before.
    """

    patience: int
    shrink: float
    averaged: bool


class Relaxation(Protocol):
    """P1 with a constraint replaced by prices; for any prices its optimum is at least that of P1."""

    prices: Floats
    """The prices to begin with."""
    pace: Pace
    """How the prices move."""

    def solve(self, prices: Floats) -> tuple[float, Floats, Floats]:
        """Returns the optimum at these prices, its gradient by the prices, and the clients per layer [L]."""
        ...

    def allowed(self, prices: Floats) -> Floats:
        """Returns the nearest prices for which the optimum is a bound."""
        ...


def agree(problem: Problem, worth: Floats) -> tuple[Floats, Mask, Floats]:
    """Maximises ``worth(A) - lam |A| (N - |A|)`` over sets A of clients, for each layer, without budgets.

    Apart from the worth only |A| matters, so the best A of each size holds the clients with the largest
    worth.

    Args:
        problem: P1, which gives the weights and lam.
        worth: [D, L], the worth of each layer to one client of a row.

    Returns:
        The maxima [L], the best sets [D, L], and their numbers of clients [L].
    """
    # Transposed to [L, D], so that the clients of a layer are adjacent in memory.
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
    """Replaces budgets by a price per client that each layer costs; for budgets in layers.

    The bound is as good as the linear relaxation with a variable for every pair of clients and every layer,
    which is nearly always tight. One evaluation sorts the clients of each layer.
    """

    pace = Pace(patience=15, shrink=0.6, averaged=False)

    def __init__(self, problem: Problem, limits: Counts) -> None:
        self.problem, self.budgets = problem, limits.budgets
        layers = problem.gains.shape[1]
        # At lam = 0 any price between the gains of the last layer that fits and of the next one is optimal.
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
        """Returns the prices with negative ones set to 0."""
        return np.maximum(prices, 0.0)


class PricedLayers:
    """Decouples clients, which keep their budgets, from layers, which count agreement; for any budgets.

    Both sides choose who trains what, and prices penalise where they differ (Lagrangian decomposition). The
    bound is as good as the convex hull of the clients' feasible sets. There are many prices, so that single
    gradients zigzag; and so much depends on the first ones that these come from a good choice.
    """

    pace = Pace(patience=4, shrink=0.5, averaged=True)

    def __init__(self, problem: Problem, limits: Costs, mask: Mask) -> None:
        self.problem, self.limits = problem, limits
        self.prices: Floats = prices_of(problem, limits, mask)

    def solve(self, prices: Floats) -> tuple[float, Floats, Floats]:
        """See `Relaxation.solve`."""
        best, chosen, counts = agree(self.problem, self.problem.gains - prices)
        weights = self.problem.weights
        bought, worth = self.limits.relaxed(prices)
        slope = weights[:, None] * (bought.astype(np.float64) - chosen)
        return float(best.sum() + weights @ worth), slope, counts

    def allowed(self, prices: Floats) -> Floats:
        """Returns the prices unchanged, because any prices give a bound."""
        return prices


class Bound:
    """Holds the least upper bound found so far and lowers it by subgradient steps of Polyak's size."""

    def __init__(self, problem: Problem, mask: Mask) -> None:
        """Chooses the relaxation; `mask` [D, L] is a good choice."""
        limits = problem.limits
        self._relaxation: Relaxation
        if isinstance(limits, Counts):
            self._relaxation = PricedBudgets(problem, limits)
        elif isinstance(limits, Costs):
            self._relaxation = PricedLayers(problem, limits, mask)
        self._prices = self._best_prices = self._relaxation.prices
        self._heading: Floats | None = None
        self._factor, self._since = 1.0, 0
        self.value, self.steps, self.done = np.inf, 0, False

    def lower(self, steps: int, reached: float) -> Iterator[Floats]:
        """Lowers the bound by some steps, or fewer if it cannot become lower.

        Args:
            steps: the largest number of steps.
            reached: the best objective so far, which the steps aim at.

        Yields:
            After each step, the numbers of clients per layer in the relaxation, [L].
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
        # Prices at the border of the allowed region that would leave it stay where they are.
        slope = np.where(self._relaxation.allowed(self._prices - slope) == self._prices, 0.0, slope)
        length = float((slope * slope).sum())
        self.done = length == 0 or value <= reached
        if self.done:
            return counts
        pace = self._relaxation.pace
        if self._since > pace.patience:
            # Start again from the best prices with smaller steps.
            self._factor, self._since = self._factor * pace.shrink, 0
            self._prices, self._heading = self._best_prices, None
        else:
            if pace.averaged and self._heading is not None:
                # The average direction strategy (Sherali and Ulular, 1989): both parts have the same length.
                slope = slope + np.sqrt(length / (self._heading**2).sum()) * self._heading
                length = float((slope * slope).sum())
            self._heading = slope
            step = self._factor * (value - reached) / length
            self._prices = self._relaxation.allowed(self._prices - step * slope)
        return counts
