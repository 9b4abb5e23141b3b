"""Defines `choose_layers`, which solves P1 for arrays of gains and budgets."""

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
from fedtlu_fast.selection.agreement.search import PROVING, QUICK, QUICK_COSTS, Found, search


@dataclass(frozen=True)
class Choice:
    """Holds a choice of the layers that each client trains.

    Attributes:
        mask: [C, L] bool, whether client c trains layer l.
        objective: the objective of P1 for this choice; infinite if it is too large for float64.
        bound: an upper bound of the objective of any choice (up to rounding); it may be infinite likewise.
        gap: how far below the optimum the objective can be, as a share of the bound; 0: optimal. It is
            finite even if these two are not.
    """

    mask: Mask
    objective: float
    bound: float
    gap: float


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
    """Solves P1 of the client-side paper (arXiv 2408.15600): layers with large gains on which clients agree.

        maximise  sum_il m_il g_il - lam sum_l k_l (N - k_l),  k_l = sum_i m_il,  each row within its budget

    The method is ours. A Lagrangian relaxation of the budgets gives an upper bound and suggests the numbers
    k_l of clients per layer. Best responses of the clients (P1 is an exact potential game) turn these numbers
    into choices. In most cases the objective reaches the bound, which proves that the choice is optimal.

    At lam = 0 every client takes its own best set. If lam (N - 1) exceeds the sum of all positive gains,
    disagreement never pays: all clients take the same set, the best one that fits the smallest budget, and
    larger budgets are not filled. A client with budget 0 then leaves all clients with nothing, so leave such
    clients out of the call. Layers are taken only if they add to the objective; a layer with a negative gain
    may do so through agreement. Of equal layers the earlier ones are taken. Clients with equal gains and
    budgets get the same set. The order of clients does not matter.

    Args:
        gains: [C, L], finite, any sign; layer 0 is nearest the input. The paper uses gradient norms.
        budgets: [C], not negative; whole numbers of layers, or any numbers if `costs` or `reach` is given.
        lam: the price, not negative and possibly infinite, of each layer that one client of a pair trains
            and the other does not; in units of the gains (see `normalise`).
        costs: [L], not negative, the cost of training each layer; None for 1.
        reach: [L], not negative and non-increasing, the cost of the way down to the lowest chosen layer, paid
            once; None for 0. A set fits if costs and reach exceed the budget by at most a relative 1e-12.
        exact: whether to prove the optimum; HiGHS does so if the bound does not. For small problems only.
        prove: whether to lower the bound for longer (some 2000 steps) if the objective does not reach it.

    Raises:
        InputError: Shapes do not fit, numbers are out of these limits, or the problem is too large for
            `exact`.
    """
    table = numbers("gains", gains, 2)
    clients, layers = table.shape
    if not clients or not layers:
        raise InputError("gains.shape", table.shape, "at least one client and one layer")
    if not isinstance(lam, Real) or isnan(lam) or lam < 0:
        raise InputError("lam", lam, "a number of at least 0, or infinity")
    amounts = _budgets(budgets, clients, whole=costs is None and reach is None)
    prices, way = _costs(costs, reach, layers)

    first, rows = alike(table, amounts)
    limits = _limits(amounts[first], prices, way)
    # Scaling by a power of 2 keeps every bit, and keeps sums far from overflow in any units.
    exponent = -int(np.frexp(np.abs(table).max())[1])
    scaled = np.ldexp(table[first], exponent)
    weights = np.bincount(rows).astype(np.float64)
    with np.errstate(over="ignore"):
        own_lam = float(np.ldexp(lam, exponent)) if clients > 1 else 0.0

    blocked = prices + way > amounts[first][:, None] * (1 + ROUNDING)
    found = _solve(scaled, weights, own_lam, limits, blocked, exact, prove)
    objective = _objective(scaled, weights, found.mask, own_lam)
    bound = max(found.bound, objective)
    gap = (bound - objective) / bound if bound > objective else 0.0
    with np.errstate(over="ignore"):  # sums of the largest gains are infinite in the units of the gains
        objective, bound = (float(np.ldexp(value, -exponent)) for value in (objective, bound))
    return Choice(found.mask[rows], objective, bound, gap)


def normalise(gains: ArrayLike) -> Floats:
    """Divides gains [C, L] by the mean of their magnitudes over all clients and layers, unless it is 0.

    The paper leaves the units of lambda open; this choice is ours. With a mean gain of 1 in every round, a
    lambda means the same for every model and throughout the training. Its meaning does depend on the size of
    the cohort: a layer that no other client trains costs a client lambda (C - 1), so that agreement begins to
    matter at about lambda = 1 / C.

    Raises:
        InputError: The gains are not finite numbers.
    """
    table = numbers("gains", gains, 2)
    largest = float(np.abs(table).max(initial=0.0))
    if largest == 0:
        return table
    # Divided by the largest first, because the mean of very large numbers would overflow.
    table /= largest
    normal: Floats = table / np.abs(table).mean()
    return normal


def _solve(
    gains: Floats, weights: Floats, lam: float, limits: Limits, blocked: Mask, exact: bool, prove: bool
) -> Found:
    """Finds a choice for every row, and a bound; `blocked` [D, L] marks layers that alone are too costly."""
    quick = QUICK if isinstance(limits, Counts) else QUICK_COSTS
    effort = PROVING if prove or exact else quick
    everybody = weights @ gains
    clients = weights.sum()
    if lam == 0:
        problem = Problem(gains, weights, 0.0, limits)
        found = Found.alone(problem)
    elif lam * (clients - 1) > weights @ np.maximum(gains, 0.0).sum(1, where=~blocked):
        # A disagreement costs at least lam (N - 1), which is more than any gain, so all act as one client.
        problem = Problem(everybody[None], np.ones(1), 0.0, limits.common())
        found = Found.alone(problem)
    else:
        # Blocked layers get a gain so low that even the agreement of all clients cannot make up for it.
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
        # All layers cost the same, so the budget is a number of layers.
        layers = np.full(len(budgets), float(len(costs)))
        if costs[0] > 0:
            layers = np.minimum(layers, budgets * (1 + ROUNDING) // costs[0])
        return Counts(layers.astype(np.int64))
    return Costs(budgets, costs, reach)


def _budgets(budgets: ArrayLike, clients: int, whole: bool) -> Floats:
    amounts = numbers("budgets", budgets, 1)
    if amounts.shape != (clients,):
        raise InputError("budgets.shape", amounts.shape, f"({clients},), one for each client")
    wrong = np.nonzero((amounts < 0) | (whole & (amounts % 1 != 0)))[0]
    if len(wrong):
        expected = "a whole number of layers, 0 or more" if whole else "0 or more"
        fix = "With costs or reach it may be any number." if whole else ""
        raise InputError(f"budgets[{wrong[0]}]", float(amounts[wrong[0]]), expected, fix)
    return amounts


def _costs(costs: ArrayLike | None, reach: ArrayLike | None, layers: int) -> tuple[Floats, Floats]:
    prices = np.ones(layers) if costs is None else numbers("costs", costs, 1)
    way = np.zeros(layers) if reach is None else numbers("reach", reach, 1)
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


def numbers(name: str, given: ArrayLike, dimensions: int) -> Floats:
    """Returns a new float64 array after checking its dimensions and that its numbers are finite."""
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
