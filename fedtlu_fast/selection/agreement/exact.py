"""Solves P1 exactly, as a mixed-integer linear programme with HiGHS."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from fedtlu_fast.errors import InputError
from fedtlu_fast.selection.agreement.costs import Costs
from fedtlu_fast.selection.agreement.limits import Counts, Mask
from fedtlu_fast.selection.agreement.problem import Problem
from fedtlu_fast.selection.agreement.search import Found

PAIRS = 300_000
"""The largest number of variables for pairs of clients and a layer."""
TOLERANCE = 1e-9


def solve_exactly(problem: Problem, best: Found) -> Found:
    """Returns an optimal choice, and HiGHS' bound.

    The programme has a variable d_ijl >= |m_il - m_jl| for every pair of rows and every layer, weighted by
    the numbers of clients in the pair. Without budgets this relaxation is a minimum cut and therefore exact;
    with budgets it is nearly exact. A formulation with unary counters would have fewer variables, but in its
    relaxation fractional counters make disagreement free, and it takes up to a hundred times as long.

    Args:
        problem: P1.
        best: a known choice; the result is at least as good.

    Raises:
        InputError: There are more than PAIRS of these variables.
    """
    rows, layers = problem.gains.shape
    pairs = rows * (rows - 1) // 2 * layers if problem.lam else 0
    if pairs > PAIRS:
        raise InputError(
            "exact",
            f"{rows} different clients and {layers} layers",
            f"at most {PAIRS} pairs of clients times layers, but there are {pairs}",
            "Use prove=True, whose bound shows how far the choice can be from the optimum.",
        )
    programme = _Programme(problem)
    while True:
        mask, bound = programme.solve()
        over = np.nonzero(~problem.limits.fits(mask))[0]
        if not len(over):
            break
        # HiGHS tolerates violations of 1e-6, so a set just over a budget is excluded by its own constraint.
        for row in over:
            programme.rule_out(int(row), mask[row])
    objective = float(problem.objectives(mask))
    if objective <= best.objective:
        mask, objective = best.mask, best.objective
    return Found(mask, objective, max(objective, min(best.bound, bound)))


class _Programme:
    """Holds the programme; its variables are m [D, L], d [pairs, L], and, with a reach, r [D].

    r is the part of its budget that each row pays for its reach, as a share.
    """

    def __init__(self, problem: Problem) -> None:
        self.shape = rows, layers = problem.gains.shape
        weights, limits = problem.weights, problem.limits
        # The variables d are needed only if disagreement has a price.
        one, other = np.triu_indices(rows if problem.lam else 0, 1)
        choices, differences = rows * layers, len(one) * layers
        reached = rows if isinstance(limits, Costs) else 0
        self.objective = np.concatenate(
            [
                -(weights[:, None] * problem.gains).ravel(),
                np.repeat(problem.lam * weights[one] * weights[other], layers),
                np.zeros(reached),
            ]
        )
        self.integral = np.repeat([1, 0], [choices, differences + reached])
        number = np.arange(len(one))
        difference = sparse.kron(
            sparse.csr_array(
                (
                    np.repeat([1.0, -1.0], len(one)),
                    (np.concatenate([number, number]), np.concatenate([one, other])),
                ),
                shape=(len(one), rows),
            ),
            sparse.eye_array(layers),
        )
        same = sparse.eye_array(differences)
        absolute = sparse.vstack([sparse.hstack([difference, -same]), sparse.hstack([-difference, -same])])
        self.constraints = [self._constraint(absolute, 0.0)]
        if isinstance(limits, Counts):
            each = sparse.kron(sparse.eye_array(rows), np.ones((1, layers)))
            self.constraints.append(self._constraint(each, limits.budgets))
        elif isinstance(limits, Costs):
            self._add_costs(limits, differences)

    def _add_costs(self, limits: Costs, differences: int) -> None:
        """Adds the budgets: costs and reach of a row, both as shares of its budget, sum to at most 1."""
        rows, layers = self.shape
        shares = 1 / np.where(limits.budgets > 0, limits.budgets, 1.0)
        none = sparse.csr_array((rows, differences))
        spent = sparse.kron(sparse.diags_array(shares), limits.costs[None])
        whole = (limits.budgets > 0).astype(np.float64)
        self.constraints.append(self._constraint(sparse.hstack([spent, none, sparse.eye_array(rows)]), whole))
        way = sparse.kron(sparse.diags_array(shares), sparse.diags_array(limits.reach))
        paid = sparse.kron(sparse.eye_array(rows), np.ones((layers, 1)))
        none = sparse.csr_array((rows * layers, differences))
        self.constraints.append(self._constraint(sparse.hstack([way, none, -paid]), 0.0))

    def rule_out(self, row: int, layers: Mask) -> None:
        """Excludes all sets of a row that contain these layers; larger sets exceed the budget as well."""
        cut = np.zeros((1, len(self.objective)))
        start = row * self.shape[1]
        cut[0, start : start + self.shape[1]] = layers
        self.constraints.append(self._constraint(sparse.csr_array(cut), float(layers.sum() - 1)))

    def solve(self) -> tuple[Mask, float]:
        """Returns the best choice [D, L] and the bound."""
        found = milp(
            self.objective,
            constraints=self.constraints,
            integrality=self.integral,
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": TOLERANCE},
        )
        if found.x is None:
            raise RuntimeError(f"HiGHS found no choice: {found.message}")
        choices = found.x[: self.shape[0] * self.shape[1]]
        return choices.reshape(self.shape) > 0.5, -float(found.mip_dual_bound)

    def _constraint(self, left: sparse.sparray, right: object) -> LinearConstraint:
        """Returns the constraint ``left @ variables <= right``; columns that `left` lacks are 0."""
        missing = len(self.objective) - left.shape[1]
        wide = sparse.hstack([left, sparse.csr_array((left.shape[0], missing))]) if missing else left
        return LinearConstraint(sparse.csr_array(wide), -np.inf, right)
