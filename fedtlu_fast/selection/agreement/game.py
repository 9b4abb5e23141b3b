"""P1 as an exact potential game: a client that chooses better for itself raises the objective."""

from __future__ import annotations

import numpy as np

from fedtlu_fast.selection.agreement.limits import Floats, Mask
from fedtlu_fast.selection.agreement.problem import Problem

ROUNDS = 100
"""Sweeps after which a search stops; they end by themselves."""
SLACK = 1e-12
"""An improvement by less, relative to what is at stake for the row, is rounding."""


def descend(problem: Problem, counts: Floats, rounds: int = ROUNDS) -> Mask:
    """From how many train each layer to choices: all clients answer at once, again and again.

    -k (N - k) is convex in k, so that its tangent at the present k is below it: the best sets by gain plus
    slope are never worse than the present ones (the convex-concave procedure), and the counts settle.

    Args:
        problem: P1.
        counts: [S, L], S starts.
        rounds: of answers, at most.

    Returns:
        [S, D, L].
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
    """One row after another answers best to all others, until none gains by it (a Nash equilibrium).

    Args:
        problem: P1.
        mask: [D, L].

    Returns:
        [D, L], at least as good.
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
