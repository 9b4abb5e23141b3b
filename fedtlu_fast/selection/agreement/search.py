"""Searches for a good choice for P1, and bounds how far it can be from the optimum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedtlu_fast.selection.agreement.bound import Bound
from fedtlu_fast.selection.agreement.game import ROUNDS, descend, settle
from fedtlu_fast.selection.agreement.limits import Floats, Mask
from fedtlu_fast.selection.agreement.problem import Problem


@dataclass(frozen=True)
class Effort:
    """Says how long the search goes on.

    Attributes:
        steps: the largest number of steps of the bound.
        starts: the largest number of starts that are taken from the bound.
        followed: the number of starts that are continued after one round of responses, the best ones.
        look: the rounds of responses that these get; the best one is then followed until it ends.
        enough: the relative distance between objective and bound at which the search ends.
    """

    steps: int
    starts: int
    followed: int
    look: int
    enough: float


QUICK = Effort(steps=48, starts=48, followed=8, look=4, enough=1e-5)
QUICK_COSTS = Effort(steps=64, starts=24, followed=2, look=2, enough=1e-4)
"""For budgets in costs: responses cost more than for numbers of layers, and the bound needs more steps."""
PROVING = Effort(steps=2000, starts=256, followed=256, look=ROUNDS, enough=1e-9)

BATCH = 8
"""The number of steps of the bound after which the search follows the new starts."""
CONTINUATION = (0.0625, 0.125, 0.25, 0.5)
"""Shares of lambda through which a start moves from the clients' own choices towards agreement."""
SIZES = 8
"""The largest number of sizes of a common set from which the search starts."""


@dataclass(frozen=True)
class Found:
    """Holds a choice and a bound.

    Attributes:
        mask: [D, L] bool, the choice.
        objective: the objective of the choice.
        bound: an upper bound of the objective of any choice.
    """

    mask: Mask
    objective: float
    bound: float

    @classmethod
    def alone(cls, problem: Problem) -> Found:
        """Gives every row its own best set, which is optimal if lam is 0."""
        mask = problem.limits.best_sets(problem.gains)
        _, worth = problem.limits.relaxed(problem.gains)
        return cls(mask, float(problem.objectives(mask)), float(problem.weights @ worth))

    def closed(self, enough: float) -> bool:
        """Tells whether the relative distance between objective and bound is at most `enough`."""
        return self.bound < np.inf and self.bound - self.objective <= enough * abs(self.bound)


def search(problem: Problem, effort: Effort) -> Found:
    """Searches by best responses from several starts, from starts of the bound, and around the best choice.

    Args:
        problem: P1, with at least two clients and a lam above 0.
        effort: says how long the search goes on.
    """
    nothing = np.zeros(problem.gains.shape, dtype=np.bool_)
    mask, objective = _better(problem, effort, _starts(problem), nothing, 0.0)
    bound, seen = Bound(problem, mask), set[bytes]()
    found = Found(mask, objective, np.inf)
    while not (found.closed(effort.enough) or bound.done or bound.steps >= effort.steps):
        fresh = []
        for counts in bound.lower(BATCH, objective):
            if counts.tobytes() not in seen and len(seen) < effort.starts:
                seen.add(counts.tobytes())
                fresh.append(counts)
        found = Found(mask, objective, max(bound.value, objective))
        if fresh and not found.closed(effort.enough):
            mask, objective = _better(problem, effort, np.array(fresh), mask, objective)
            found = Found(mask, objective, max(bound.value, objective))
    while not found.closed(effort.enough):
        mask, objective = _better(problem, effort, _moves(problem, mask), mask, objective)
        if objective == found.objective:
            break
        found = Found(mask, objective, max(bound.value, objective))
    return found


def _better(
    problem: Problem, effort: Effort, counts: Floats, mask: Mask, objective: float
) -> tuple[Mask, float]:
    """Follows the best of the starts [S, L]; returns its choice, or the given one if that is not worse."""
    masks = descend(problem, counts, 1)
    few = np.argsort(-problem.objectives(masks), kind="stable")[: effort.followed]
    masks = descend(problem, problem.counts(masks[few]), effort.look)
    objectives = problem.objectives(masks)
    first = int(objectives.argmax())
    if objectives[first] <= objective:
        return mask, objective
    (followed,) = descend(problem, problem.counts(masks[first : first + 1]))
    followed = settle(problem, followed)
    return followed, float(problem.objectives(followed))


def _starts(problem: Problem) -> Floats:
    """Returns starts [S, L]: the clients' own choices, those on the way to agreement, and common sets."""
    alone = problem.limits.best_sets(problem.gains)
    own = followed = problem.counts(alone)[None]
    for share in CONTINUATION:
        nearer = Problem(problem.gains, problem.weights, problem.lam * share, problem.limits)
        followed = problem.counts(descend(nearer, followed))
    largest = max(int(np.count_nonzero(alone, axis=1).max()), 1)
    sizes = np.unique(np.linspace(1, largest, SIZES).astype(np.int64))
    order = np.argsort(-(problem.weights @ problem.gains), kind="stable")
    common = np.zeros((len(sizes), len(order)))
    for row, size in zip(common, sizes, strict=True):
        row[order[:size]] = problem.clients
    return np.concatenate([own, followed, common])


def _moves(problem: Problem, mask: Mask) -> Floats:
    """Returns starts [S, L]: a choice's numbers of clients, with one layer changed to all clients or none."""
    counts = problem.counts(mask)
    moves = np.tile(counts, (2, len(counts), 1))
    np.einsum("sll->sl", moves)[:] = [[problem.clients], [0.0]]
    moves = moves.reshape(-1, len(counts))
    changed: Floats = moves[(moves != counts).any(1)]
    return changed
