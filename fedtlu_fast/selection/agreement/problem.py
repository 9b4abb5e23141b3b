"""Defines P1 in the form in which it is solved."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.selection.agreement.limits import Floats, Limits, Mask


@dataclass(frozen=True)
class Problem:
    """Maximise sum_i w_i sum_l m_il g_il - lam sum_l k_l (N - k_l), with k_l = sum_i w_i m_il.

    Clients with the same gains and budget form one row. An optimum gives them the same set, because
    -k (N - k) is convex: if two of them have different sets, one of the sets can be given to both without
    loss.

    Attributes:
        gains: [D, L], the gain of each layer to a client of each row; very low for a layer that alone
            exceeds the budget, so that no optimum contains it.
        weights: [D], the number of clients in each row.
        lam: the price of each layer that one client of a pair trains and the other does not.
        limits: the budgets of the rows.
    """

    gains: Floats
    weights: Floats
    lam: float
    limits: Limits

    @cached_property
    def clients(self) -> float:
        """Returns N, the number of clients."""
        return float(self.weights.sum())

    def counts(self, masks: Mask) -> Floats:
        """Returns how many clients train each layer, [..., L]."""
        found: Floats = self.weights @ masks
        return found

    def objectives(self, masks: Mask) -> Floats:
        """Returns the objective of each mask [..., D, L], [...]."""
        gained = np.einsum("...dl,dl->...d", masks, self.gains) @ self.weights
        counts = self.counts(masks)
        worth: Floats = gained - self.lam * (counts * (self.clients - counts)).sum(-1)
        return worth


def alike(gains: Floats, budgets: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Merges clients with equal gains and budgets into rows, in an order that does not depend on theirs.

    Args:
        gains: [C, L].
        budgets: [C].

    Returns:
        For each of D rows one of its clients [D], and for each of C clients its row [C].
    """
    # Big-endian bytes sort like numbers of one sign, so the order stays the same if gains are scaled.
    keys = [row.tobytes() for row in np.column_stack([budgets, gains]).astype(">f8")]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    first: list[int] = []
    rows = np.empty(len(keys), dtype=np.int64)
    for client in order:
        if not first or keys[first[-1]] != keys[client]:
            first.append(client)
        rows[client] = len(first) - 1
    return np.array(first), rows
