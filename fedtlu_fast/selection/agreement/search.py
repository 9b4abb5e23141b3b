"""A good choice for P1, and how far from the best it can be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedtlu_fast.selection.agreement.bound import Bound
from fedtlu_fast.selection.agreement.game import ROUNDS, descend, settle
from fedtlu_fast.selection.agreement.limits import Floats, Mask
from fedtlu_fast.selection.agreement.problem import Problem


@dataclass(frozen=True)
class Effort:
    """When the search ends.

    Attributes:
        steps: of the bound.
        starts: counts of the bound that are followed.
        followed: of several starts those that are best after one round of answers.
        look: rounds of answers from these; the best is then followed to its end.
        enough: relative distance of choice and bound that ends it.
    """

    steps: int
    starts: int
    followed: int
    look: int
    enough: float


QUICK = Effort(steps=48, starts=48, followed=8, look=4, enough=1e-5)
PROVING = Effort(steps=2000, starts=256, followed=256, look=ROUNDS, enough=1e-9)

BATCH = 8
"""Steps of the bound between two looks at what its counts lead to."""
CONTINUATION = (0.0625, 0.125, 0.25, 0.5)
"""Shares of lambda on the way from everybody's own choice."""
SIZES = 8
"""Sizes of a common set that the search starts from, at most."""


@dataclass(frozen=True)
class Found:
    """A choice and a bound.

    Attributes:
        mask: [D, L].
        objective: the choice's worth.
        bound: no choice is worth more.
    """

    mask: Mask
    objective: float
    bound: float

    @classmethod
    def alone(cls, problem: Problem) -> Found:
        """Every row's best set by itself: the choice when lam is 0."""
        mask = problem.limits.best_sets(problem.gains)
        _, worth = problem.limits.relaxed(problem.gains)
        return cls(mask, float(problem.objectives(mask)), float(problem.weights @ worth))

    def closed(self, enough: float) -> bool:
        """Whether the two are this close, relatively."""
        return self.bound < np.inf and self.bound - self.objective <= enough * abs(self.bound)


def search(problem: Problem, effort: Effort) -> Found:
    """Best responses from several starts, from the counts of the bound's prices, and around the best choice.

    Args:
        problem: P1, with clients that can disagree and a lam above 0.
        effort: when it ends.
    """
    nothing = np.zeros(problem.gains.shape, dtype=np.bool_)
    mask, objective = _better(problem, effort, _starts(problem), nothing, 0.0)
    bound, seen = Bound(problem), set[bytes]()
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
    """What the best of the starts [S, L] leads to, or the given choice when that is not worse."""
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
    """[S, L]: everybody's own choice, the way from it to lam, and common sets of several sizes."""
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
    """[S, L]: the counts of a choice, but for one layer that everybody or nobody trains."""
    counts = problem.counts(mask)
    moves = np.tile(counts, (2, len(counts), 1))
    np.einsum("sll->sl", moves)[:] = [[problem.clients], [0.0]]
    moves = moves.reshape(-1, len(counts))
    changed: Floats = moves[(moves != counts).any(1)]
    return changed
