"""P1 in the form in which it is solved."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.selection.agreement.limits import Floats, Limits, Mask


@dataclass(frozen=True)
class Problem:
    """Maximise sum_i w_i sum_l m_il g_il - lam sum_l k_l (N - k_l), with k_l = sum_i w_i m_il.

    Clients of the same gains and budget are one row: some optimum gives them the same set, because
    -k (N - k) is convex (one of two sets that they differ in can be given to both without loss).

    Attributes:
        gains: [D, L]; of a layer that alone is over the client's budget so little that nobody takes it.
        weights: [D], clients in a row.
        lam: what a pair of clients that disagree on a layer costs.
        limits: the rows' budgets.
    """

    gains: Floats
    weights: Floats
    lam: float
    limits: Limits

    @cached_property
    def clients(self) -> float:
        """N."""
        return float(self.weights.sum())

    def counts(self, masks: Mask) -> Floats:
        """[..., L]: how many clients train each layer."""
        found: Floats = self.weights @ masks
        return found

    def objectives(self, masks: Mask) -> Floats:
        """[...]: the objective of each mask [..., D, L]."""
        gained = np.einsum("...dl,dl->...d", masks, self.gains) @ self.weights
        counts = self.counts(masks)
        worth: Floats = gained - self.lam * (counts * (self.clients - counts)).sum(-1)
        return worth


def alike(gains: Floats, budgets: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Clients in an order that does not depend on the one they are given in, those that are alike as one.

    Args:
        gains: [C, L].
        budgets: [C].

    Returns:
        For each of D rows one of its clients, and for each of C clients its row.
    """
    # Big-endian bytes have the order of numbers of one sign: it stays when gains are scaled.
    keys = [row.tobytes() for row in np.column_stack([budgets, gains]).astype(">f8")]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    first: list[int] = []
    rows = np.empty(len(keys), dtype=np.int64)
    for client in order:
        if not first or keys[first[-1]] != keys[client]:
            first.append(client)
        rows[client] = len(first) - 1
    return np.array(first), rows
