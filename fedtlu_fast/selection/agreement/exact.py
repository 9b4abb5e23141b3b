"""P1 as a mixed-integer linear programme, solved by HiGHS."""

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
"""Variables for pairs of clients and a layer, at most."""
TOLERANCE = 1e-9


def solve_exactly(problem: Problem, best: Found) -> Found:
    """The best choice, and HiGHS' bound.

    A variable d_ijl >= |m_il - m_jl| for every pair of rows and layer, weighted by the pair's clients.
    Without budgets that relaxation is a minimum cut, hence exact; with them it is nearly so. The formulation
    with unary counters has fewer variables, but its relaxation knows no disagreement (shares of counters
    cost nothing), and takes up to some hundred times as long.

    Args:
        problem: P1.
        best: a choice to be at least as good as.

    Raises:
        InputError: there are more than PAIRS of these variables.
    """
    rows, layers = problem.gains.shape
    pairs = rows * (rows - 1) // 2 * layers if problem.lam else 0
    if pairs > PAIRS:
        raise InputError(
            "exact",
            f"{rows} different clients and {layers} layers",
            f"at most {PAIRS} pairs of clients times layers, not {pairs}",
            "Use prove: its bound says how far the choice can be from the best.",
        )
    programme = _Programme(problem)
    while True:
        mask, bound = programme.solve()
        over = np.nonzero(~problem.limits.fits(mask))[0]
        if not len(over):
            break
        # HiGHS keeps constraints up to 1e-6: a set just over a budget is ruled out by name.
        for row in over:
            programme.rule_out(int(row), mask[row])
    objective = float(problem.objectives(mask))
    if objective <= best.objective:
        mask, objective = best.mask, best.objective
    return Found(mask, objective, max(objective, min(best.bound, bound)))


class _Programme:
    """Variables: m [D, L], then d [pairs, L], then with a reach what each row pays for it, as a share [D]."""

    def __init__(self, problem: Problem) -> None:
        self.shape = rows, layers = problem.gains.shape
        weights, limits = problem.weights, problem.limits
        # Without a price on disagreement there is no use for these.
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
        """A row's costs and its reach, both as shares of its budget, are at most 1."""
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
        """No row of this budget takes all of these layers: dearer sets are over it as well."""
        cut = np.zeros((1, len(self.objective)))
        start = row * self.shape[1]
        cut[0, start : start + self.shape[1]] = layers
        self.constraints.append(self._constraint(sparse.csr_array(cut), float(layers.sum() - 1)))

    def solve(self) -> tuple[Mask, float]:
        """The best choice [D, L], and the bound."""
        found = milp(
            self.objective,
            constraints=self.constraints,
            integrality=self.integral,
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": TOLERANCE},
        )
        if found.x is None:
            raise RuntimeError(f"HiGHS gave no choice: {found.message}")
        choices = found.x[: self.shape[0] * self.shape[1]]
        return choices.reshape(self.shape) > 0.5, -float(found.mip_dual_bound)

    def _constraint(self, left: sparse.sparray, right: object) -> LinearConstraint:
        """At most; columns that are not given are 0."""
        missing = len(self.objective) - left.shape[1]
        wide = sparse.hstack([left, sparse.csr_array((left.shape[0], missing))]) if missing else left
        return LinearConstraint(sparse.csr_array(wide), -np.inf, right)
