"""Finds the largest weight of agreement that leaves clients a stated share of their gains."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum, inf
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike

from fedtlu_fast.errors import InputError
from fedtlu_fast.selection.agreement.choose import choose_layers, numbers
from fedtlu_fast.selection.agreement.costs import ROUNDING
from fedtlu_fast.selection.agreement.limits import Mask

SOLVES = 24
"""The largest number of P1s that are solved for one choice; almost always they are fewer than 8."""


@dataclass(frozen=True)
class Agreed:
    """Holds a choice of the layers that each client trains, and the lambda that it belongs to.

    Attributes:
        mask: [C, L] bool, whether client c trains layer l.
        lam: the largest lambda at which the choice solves P1, in units of the gains; infinite if all clients
            have agreed.
        kept: the share of what choosing is worth that is left: the gains above chance, relative to those
            without agreement. 1 if those are 0.
    """

    mask: Mask
    lam: float
    kept: float


@dataclass(frozen=True)
class _Point:
    """Holds a choice, its gains, and the number of disagreements of two clients about a layer."""

    mask: Mask
    gain: float
    pairs: int


def most_agreement(
    gains: ArrayLike,
    budgets: ArrayLike,
    kept: float,
    *,
    costs: ArrayLike | None = None,
    reach: ArrayLike | None = None,
    exact: bool = False,
) -> Agreed:
    """Solves P1 with the largest lambda that leaves clients a share of what their choices are worth (ours).

    The lambda of the paper (arXiv 2408.15600) says what agreement may cost in units of the gains, and these
    units mean something else in every model, round and cohort. What means the same everywhere is a share of
    the gains above chance: those of a choice minus those of as many layers drawn at random. Chance is taken
    away because layers often gain nearly the same. Then any choice keeps nearly all the gains, but it may
    keep nothing of what choosing is worth.

    With gains G (the sum of m_il g_il) and disagreements D (the sum of k_l (N - k_l)), P1 maximises
    G - lambda D. Its solutions lose gains and disagreements step by step as lambda grows: they are the
    corners of the upper hull of all pairs (D, G). The answer is the last corner that still has the share.

    Corners are found without trying lambdas: at the lambda at which two corners are worth the same, P1 either
    has a better solution, which is a corner between them, or they are neighbours. The first two are lambda 0,
    where each client chooses alone, and infinity, where all choose the same; each solution replaces the one
    on its side of the share. That takes few solutions of P1, and no tolerance.

    A choice between two corners may agree more and keep the share too, but no lambda leads to it. A single
    client may lose more than the share.

    Equal clients get the same set, and the order of clients and the units of the gains do not matter, as in
    `choose_layers`. P1 is solved by its search unless `exact`; then the share is kept all the same, but
    lambda need not be the largest.

    Args:
        gains: [C, L], see `choose_layers`.
        budgets: [C], likewise.
        kept: the share of the gains above chance that the choice keeps at least, from 0 to 1; all clients
            together. With 1 they agree only where it costs nothing, with 0 as far as they are together not
            worse off than by chance. The chance of a client is the mean of its gains over layers, for as many
            layers as it takes by itself, and at most what these gain.
        costs: [L] or None, likewise.
        reach: [L] or None, likewise.
        exact: likewise.

    Raises:
        InputError: `kept` is not between 0 and 1, or `choose_layers` refuses the other arguments.
    """
    if not isinstance(kept, Real) or not 0 <= kept <= 1:
        raise InputError("kept", kept, "a share from 0 to 1")
    table = numbers("gains", gains, 2)
    # Scaling by a power of 2 keeps every bit, and keeps sums far from overflow in any units.
    exponent = int(np.frexp(np.abs(table).max(initial=0.0))[1])
    table = np.ldexp(table, -exponent)

    def at(lam: float) -> _Point:
        mask = choose_layers(table, budgets, lam, costs=costs, reach=reach, exact=exact).mask
        counts = np.count_nonzero(mask, axis=0)
        return _Point(mask, fsum(table[mask]), int((counts * (len(mask) - counts)).sum()))

    alone, right = at(0.0), at(inf)
    own = np.sum(table, axis=1, where=alone.mask)
    chance = fsum(np.minimum(own, table.mean(1) * np.count_nonzero(alone.mask, axis=1)))
    worth = alone.gain - chance
    enough = chance + kept * worth - ROUNDING * alone.gain
    left = right if right.gain >= enough else alone
    lam = inf
    for _ in range(SOLVES):
        if left.pairs <= right.pairs:
            break
        lam = (left.gain - right.gain) / (left.pairs - right.pairs)
        new = at(lam)
        least = left.gain - lam * left.pairs - ROUNDING * alone.gain
        if not right.pairs < new.pairs < left.pairs or new.gain - lam * new.pairs < least:
            break
        left, right = (new, right) if new.gain >= enough else (left, new)
    with np.errstate(over="ignore"):
        lam = float(np.ldexp(lam, exponent))
    some = worth > ROUNDING * alone.gain
    return Agreed(left.mask, lam, (left.gain - chance) / worth if some else 1.0)
