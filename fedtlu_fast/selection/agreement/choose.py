"""`choose_layers`: P1 from arrays to arrays."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike

from fedtlu_fast.errors import InputError
from fedtlu_fast.selection.agreement.costs import ROUNDING, Costs
from fedtlu_fast.selection.agreement.limits import Counts, Floats, Limits, Mask
from fedtlu_fast.selection.agreement.problem import Problem, alike
from fedtlu_fast.selection.agreement.search import PROVING, QUICK, Found, search


@dataclass(frozen=True)
class Choice:
    """Which layers each client trains.

    Attributes:
        mask: [C, L].
        objective: of P1.
        bound: no choice has a larger objective (up to rounding).
    """

    mask: Mask
    objective: float
    bound: float

    @property
    def gap(self) -> float:
        """How far below the best the objective can be, as a share of the bound; 0: it is the best."""
        return (self.bound - self.objective) / self.bound if self.bound > self.objective else 0.0


def choose_layers(
    gains: ArrayLike,
    budgets: ArrayLike,
    lam: float,
    *,
    costs: ArrayLike | None = None,
    reach: ArrayLike | None = None,
    exact: bool = False,
    prove: bool = False,
) -> Choice:
    """Solves P1 of the client-side paper (arXiv 2408.15600): layers of large gains that clients agree on.

        maximise  sum_il m_il g_il - lam sum_l k_l (N - k_l),  k_l = sum_i m_il,  each row within its budget

    The method is ours: a Lagrangian relaxation of the budgets gives an upper bound and numbers k_l, and best
    responses (P1 is an exact potential game) make choices of them. Mostly the two meet, which proves the
    choice to be the best.

    At lam = 0 everybody takes its own best set. From lam (N - 1) > the sum of all positive gains on, and at
    infinity, no disagreement pays: all take one set, the best that fits the smallest budget, and larger
    budgets are not filled. So a client of budget 0 then leaves all with nothing: leave such clients out of
    the call. Only layers that add to the objective are taken; a layer of negative gain can, for agreement.
    Of equal layers the earlier ones are taken; clients that are alike get the same set; the order of clients
    does not matter.

    Args:
        gains: [C, L], finite, any sign; layer 0 is nearest the input. In the paper gradient norms.
        budgets: [C], not negative: whole numbers of layers, or with costs or reach any numbers.
        lam: not negative, may be infinite; in units of the gains (see `normalise`). A pair of clients costs
            it for every layer that one of them trains alone.
        costs: [L], not negative: of training each layer; None: 1.
        reach: [L], not negative and non-increasing: of going down to the lowest chosen layer, paid once;
            None: 0. A set fits if its costs and its reach are within the budget up to a relative 1e-12.
        exact: prove the optimum, by HiGHS where the bound does not do so; for small problems.
        prove: go on lowering the bound for longer (some 2000 steps) where the two do not meet.

    Raises:
        InputError: shapes that do not fit, numbers out of these limits, or `exact` for too large a problem.
    """
    table = _numbers("gains", gains, 2)
    clients, layers = table.shape
    if not clients or not layers:
        raise InputError("gains.shape", table.shape, "at least one client and one layer")
    if not isinstance(lam, Real) or isnan(lam) or lam < 0:
        raise InputError("lam", lam, "a number of at least 0, or infinity")
    amounts = _budgets(budgets, clients, whole=costs is None and reach is None)
    prices, way = _costs(costs, reach, layers)

    first, rows = alike(table, amounts)
    limits = _limits(amounts[first], prices, way)
    # By a power of 2, which keeps every bit: whatever the units, sums are far from overflow.
    exponent = -int(np.frexp(np.abs(table).max())[1])
    scaled = np.ldexp(table[first], exponent)
    weights = np.bincount(rows).astype(np.float64)
    with np.errstate(over="ignore"):
        own_lam = float(np.ldexp(lam, exponent)) if clients > 1 else 0.0

    blocked = prices + way > amounts[first][:, None] * (1 + ROUNDING)
    found = _solve(scaled, weights, own_lam, limits, blocked, exact, prove)
    objective = _objective(scaled, weights, found.mask, own_lam)
    bound = max(found.bound, objective)
    return Choice(found.mask[rows], float(np.ldexp(objective, -exponent)), float(np.ldexp(bound, -exponent)))


def normalise(gains: ArrayLike) -> Floats:
    """Gains [C, L] by the mean of their magnitudes over all clients and layers; if that is 0, as they are.

    The paper leaves the units of lambda open; this is ours. With the mean gain of the round at 1, a lambda
    means the same for every model and at every time of the training. It does not for every cohort: a layer
    that nobody else trains costs its client lambda (C - 1), so that 1 / C is where agreement begins to count.

    Raises:
        InputError: gains that are not finite numbers.
    """
    table = _numbers("gains", gains, 2)
    largest = float(np.abs(table).max(initial=0.0))
    if largest == 0:
        return table
    # By the largest first: the mean of very large numbers would overflow.
    table /= largest
    normal: Floats = table / np.abs(table).mean()
    return normal


def _solve(
    gains: Floats, weights: Floats, lam: float, limits: Limits, blocked: Mask, exact: bool, prove: bool
) -> Found:
    """A choice for every row, and a bound; `blocked` [D, L] are layers that alone are over the budget."""
    effort = PROVING if prove or exact else QUICK
    everybody = weights @ gains
    clients = weights.sum()
    if lam == 0:
        problem = Problem(gains, weights, 0.0, limits)
        found = Found.alone(problem)
    elif lam * (clients - 1) > weights @ np.maximum(gains, 0.0).sum(1, where=~blocked):
        # Any disagreement costs at least lam (N - 1): all act as one client.
        problem = Problem(everybody[None], np.ones(1), 0.0, limits.common())
        found = Found.alone(problem)
    else:
        # Below what agreement of all can add: nobody takes what is over its budget.
        problem = Problem(np.where(blocked, -1.0 - lam * clients, gains), weights, lam, limits)
        found = search(problem, effort)
    if exact and not found.closed(effort.enough):
        from fedtlu_fast.selection.agreement.exact import solve_exactly  # SciPy's optimizers load slowly.

        found = solve_exactly(problem, found)
    return Found(np.broadcast_to(found.mask, gains.shape), found.objective, found.bound)


def _objective(gains: Floats, weights: Floats, mask: Mask, lam: float) -> float:
    counts = weights @ mask
    pairs = float((counts * (weights.sum() - counts)).sum())
    return float(weights @ np.sum(gains, axis=1, where=mask)) - (lam * pairs if pairs else 0.0)


def _limits(budgets: Floats, costs: Floats, reach: Floats) -> Limits:
    if not reach.any() and (costs == costs[0]).all():
        # Like layers: as many of them as the budget pays for.
        layers = np.full(len(budgets), float(len(costs)))
        if costs[0] > 0:
            layers = np.minimum(layers, budgets * (1 + ROUNDING) // costs[0])
        return Counts(layers.astype(np.int64))
    return Costs(budgets, costs, reach)


def _budgets(budgets: ArrayLike, clients: int, whole: bool) -> Floats:
    amounts = _numbers("budgets", budgets, 1)
    if amounts.shape != (clients,):
        raise InputError("budgets.shape", amounts.shape, f"({clients},), one for each client")
    wrong = np.nonzero((amounts < 0) | (whole & (amounts % 1 != 0)))[0]
    if len(wrong):
        expected = "a whole number of layers, 0 or more" if whole else "0 or more"
        fix = "With costs or reach it may be any number." if whole else ""
        raise InputError(f"budgets[{wrong[0]}]", float(amounts[wrong[0]]), expected, fix)
    return amounts


def _costs(costs: ArrayLike | None, reach: ArrayLike | None, layers: int) -> tuple[Floats, Floats]:
    prices = np.ones(layers) if costs is None else _numbers("costs", costs, 1)
    way = np.zeros(layers) if reach is None else _numbers("reach", reach, 1)
    for name, given in (("costs", prices), ("reach", way)):
        if given.shape != (layers,):
            raise InputError(f"{name}.shape", given.shape, f"({layers},), one for each layer")
        if (given < 0).any():
            raise InputError(name, float(given.min()), "numbers of at least 0")
    if (np.diff(way) > 0).any():
        at = int(np.argmax(np.diff(way) > 0))
        expected = f"at most {way[at]:g}, as for layer {at} below it"
        raise InputError(f"reach[{at + 1}]", float(way[at + 1]), expected, "Layer 0 is nearest the input.")
    return prices, way


def _numbers(name: str, given: ArrayLike, dimensions: int) -> Floats:
    """As a new float64 array."""
    try:
        array = np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(name, given, f"an array of numbers with {dimensions} dimensions") from None
    if array.ndim != dimensions:
        raise InputError(f"{name}.shape", array.shape, f"{dimensions} dimensions")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        where = ", ".join(map(str, bad[0]))
        fix = "Leave out a client whose gradients are not finite." if name == "gains" else ""
        raise InputError(f"{name}[{where}]", float(array[tuple(bad[0])]), "a finite number", fix)
    return array + 0.0  # no -0.0
