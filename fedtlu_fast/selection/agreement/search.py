"""A good choice for P1, and how far from the best it can be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedtlu_fast.selection.agreement.bound import Bound
from fedtlu_fast.selection.agreement.game import descend, settle
from fedtlu_fast.selection.agreement.limits import Floats, Mask
from fedtlu_fast.selection.agreement.problem import Problem

STEPS, PROVING_STEPS = 64, 2000
"""Of the bound, when a choice is wanted, and when a proof is too."""
BATCH = 8
"""Steps of the bound between two looks at what its counts lead to."""
CLOSED = 1e-9
"""A choice this close to the bound, relatively, is the best one."""
CONTINUATION = (0.0625, 0.125, 0.25, 0.5)
"""Shares of lambda on the way from everybody's own choice."""
SIZES = 8
"""Sizes of a common set that the search starts from, at most."""


@dataclass
class Best:
    """The best choice so far.

    Attributes:
        mask: [D, L].
        objective: its worth.
        bound: the least upper bound.
    """

    mask: Mask
    objective: float
    bound: float = np.inf

    @property
    def closed(self) -> bool:
        """Whether nothing better is left to find."""
        return self.bound - self.objective <= CLOSED * abs(self.bound)


def search(problem: Problem, proving: bool = False) -> Best:
    """Best responses from several starts, from the counts that the bound's prices suggest, and around the best.

    Args:
        problem: P1, with clients that can disagree and a lam above 0.
        proving: lower the bound for longer.
    """
    best = Best(np.zeros(problem.gains.shape, dtype=np.bool_), 0.0)
    _try_(best, problem, _starts(problem))
    bound, seen = Bound(problem), set[bytes]()
    for _ in range((PROVING_STEPS if proving else STEPS) // BATCH):
        fresh = []
        for _ in range(BATCH):
            counts = bound.step(best.objective)
            best.bound = max(bound.value, best.objective)
            if best.closed or bound.done:
                break
            if counts.tobytes() not in seen and len(seen) < STEPS:
                seen.add(counts.tobytes())
                fresh.append(counts)
        if fresh and not best.closed:
            _try_(best, problem, np.array(fresh))
        if best.closed or bound.done:
            break
    while not best.closed and _try_(best, problem, _moves(problem, best.mask)):
        pass
    best.bound = max(bound.value, best.objective)
    return best


def _try_(best: Best, problem: Problem, counts: Floats) -> bool:
    """Whether one of these starts [S, L] leads to a better choice, which is kept."""
    masks = descend(problem, counts)
    objectives = problem.objectives(masks)
    first = int(objectives.argmax())
    if objectives[first] <= best.objective:
        return False
    mask = settle(problem, masks[first])
    best.mask, best.objective = mask, float(problem.objectives(mask))
    return True


def _starts(problem: Problem) -> Floats:
    """[S, L]: everybody's own choice, the way from it to lam, and common sets of several sizes."""
    own = problem.counts(problem.limits.best_sets(problem.gains))[None]
    followed = own
    for share in CONTINUATION:
        nearer = Problem(problem.gains, problem.weights, problem.lam * share, problem.limits)
        followed = problem.counts(descend(nearer, followed))
    layers = problem.gains.shape[1]
    largest = int(own.sum() and np.count_nonzero(problem.limits.best_sets(problem.gains), axis=1).max())
    sizes = np.unique(np.linspace(1, max(largest, 1), SIZES).astype(np.int64))
    order = np.argsort(-(problem.weights @ problem.gains), kind="stable")
    common = np.zeros((len(sizes), layers))
    for row, size in zip(common, sizes, strict=True):
        row[order[:size]] = problem.clients
    return np.concatenate([own, followed, common])


def _moves(problem: Problem, mask: Mask) -> Floats:
    """[S, L]: the counts of a choice, but for one layer that everybody or nobody trains."""
    counts = problem.counts(mask)
    layers = len(counts)
    everybody, nobody = np.tile(counts, (layers, 1)), np.tile(counts, (layers, 1))
    np.fill_diagonal(everybody, problem.clients)
    np.fill_diagonal(nobody, 0.0)
    moves = np.concatenate([everybody, nobody])
    return moves[(moves != counts).any(1)]
