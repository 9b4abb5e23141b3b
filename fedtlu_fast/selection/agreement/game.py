"""Improves choices by best responses: P1 is an exact potential game.

In such a game, a client that chooses better for itself also raises the common objective.
"""

from __future__ import annotations

import numpy as np

from fedtlu_fast.selection.agreement.limits import Floats, Mask
from fedtlu_fast.selection.agreement.problem import Problem

ROUNDS = 100
"""The largest number of sweeps of a search; almost always it ends earlier by itself."""
SLACK = 1e-12
"""A smaller improvement, relative to the largest possible objective of the row, counts as rounding."""


def descend(problem: Problem, counts: Floats, rounds: int = ROUNDS) -> Mask:
    """Turns numbers of clients per layer into choices: all clients respond together, again and again.

    The function -k (N - k) is convex in k, so its tangent at the current k lies below it. Therefore the best
    sets by gain plus slope are never worse than the current ones (the convex-concave procedure), and the
    numbers converge.

    Args:
        problem: P1.
        counts: [S, L], the numbers of clients per layer of S starts.
        rounds: the largest number of rounds of responses.

    Returns:
        The choices of the S starts, [S, D, L] bool.
    """
    masks = np.empty((len(counts), *problem.gains.shape), dtype=np.bool_)
    moving = np.arange(len(counts))
    for _ in range(rounds):
        slopes = problem.lam * (2 * counts - problem.clients)
        found = problem.limits.best_sets(problem.gains + slopes[:, None, :])
        masks[moving] = found
        after = problem.counts(found)
        unsettled = (after != counts).any(-1)
        moving, counts = moving[unsettled], after[unsettled]
        if not len(moving):
            break
    return masks


def settle(problem: Problem, mask: Mask) -> Mask:
    """Lets one row after another respond best to all others, until no row gains (a Nash equilibrium).

    Args:
        problem: P1.
        mask: [D, L], the choice to begin with.

    Returns:
        A choice [D, L] that is at least as good.
    """
    mask, weights = mask.copy(), problem.weights[:, None]
    slack = SLACK * (np.maximum(problem.gains, 0.0).sum(1) + problem.lam * problem.clients)
    for _ in range(ROUNDS):
        others = problem.counts(mask) - weights * mask
        values = problem.gains - problem.lam * (problem.clients - 2 * others - weights)
        better = problem.limits.best_sets(values)
        improved = np.nonzero(((better ^ mask) * np.where(better, values, -values)).sum(1) > slack)[0]
        if not len(improved):
            break
        counts = problem.counts(mask)
        for row in improved:
            weight = problem.weights[row]
            others = counts - weight * mask[row]
            values = problem.gains[row] - problem.lam * (problem.clients - 2 * others - weight)
            found = problem.limits.best_set(int(row), values)
            if ((found ^ mask[row]) * np.where(found, values, -values)).sum() > slack[row]:
                mask[row] = found
                counts = others + weight * found
    return mask
