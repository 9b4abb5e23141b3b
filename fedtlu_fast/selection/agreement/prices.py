"""Estimates the prices at which each client would choose, by itself, what it chooses in a good choice."""

from __future__ import annotations

import numpy as np

from fedtlu_fast.selection.agreement.costs import Costs
from fedtlu_fast.selection.agreement.limits import Floats, Mask
from fedtlu_fast.selection.agreement.problem import Problem


def prices_of(problem: Problem, limits: Costs, mask: Mask) -> Floats:
    """Estimates the best prices of `PricedLayers` from a good choice; the method is ours.

    A client's price of a layer is what the layer's cost is worth to it (`Costs.marginal`, at the tangent of
    the agreement) plus a rent. Rents are what is left of the gains, after transfers between the clients of a
    layer: at most lam for each pair, and just lam from a client that trains the layer to one that does not.
    The transfers level the rents among the clients that train it, and among the others, as far as they can,
    so that few clients are near to another choice: an isotonic regression of each group, ordered by rents.

    Args:
        problem: P1.
        limits: its budgets.
        mask: [D, L], the choice.

    Returns:
        [D, L], the price of each layer for a client of each row.
    """
    counts = problem.counts(mask)
    tangent = problem.gains + problem.lam * (2 * counts - problem.clients)
    base = limits.marginal(tangent, mask)[:, None] * limits.costs
    rents = problem.gains - base
    order = np.lexsort((-rents.T, ~mask.T))
    weights = problem.weights[order]
    count = np.cumsum(weights, axis=1)
    sent = problem.lam * (problem.clients - 2 * count + weights)
    after = np.take_along_axis(rents.T, order, 1) - sent
    place = np.arange(len(mask))
    first = (place == 0) | (place == np.count_nonzero(mask, axis=0)[:, None])
    found = np.empty_like(rents.T)
    even = falling(after.reshape(-1), weights.reshape(-1), first.reshape(-1))
    np.put_along_axis(found, order, even.reshape(found.shape), 1)
    return base + found.T


def falling(values: Floats, weights: Floats, first: Mask) -> Floats:
    """Returns the nearest non-increasing values of each group by weighted least squares.

    Neighbours that rise have the same value in the answer (pool adjacent violators), so that all such pairs
    can be pooled together, again and again.

    Args:
        values: [n], one group after another.
        weights: [n], positive.
        first: [n], whether a value is the first of its group.
    """
    sums, masses, lengths = values * weights, weights, np.ones(len(values), dtype=np.int64)
    while True:
        means: Floats = sums / masses
        rising = np.zeros(len(means), dtype=np.bool_)
        rising[1:] = (means[1:] > means[:-1]) & ~first[1:]
        if not rising.any():
            return np.repeat(means, lengths)
        heads = np.flatnonzero(~rising)
        first = first[heads]
        sums, masses, lengths = (np.add.reduceat(numbers, heads) for numbers in (sums, masses, lengths))
