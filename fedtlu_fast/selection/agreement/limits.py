"""What fits into a client's budget, and the best of it: the clients' side of P1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Limits(Protocol):
    """The budgets of some clients (rows)."""

    def best_sets(self, values: Floats) -> Mask:
        """The set of largest value within its budget, of each row; only positive values are taken.

        Args:
            values: [..., D, L], one row for each client.

        Returns:
            [..., D, L]; of equal sets always the same one.
        """
        ...

    def relaxed(self, values: Floats) -> tuple[Mask, Floats]:
        """Of each row a set, perhaps over the budget, and its value, which none within the budget is above.

        Args:
            values: [D, L].

        Returns:
            [D, L] and [D].
        """
        ...

    def fits(self, layers: Mask) -> Mask:
        """[..., D]: whether the sets [..., D, L] are within their budgets."""
        ...

    def best_set(self, row: int, values: Floats) -> Mask:
        """[L]: the same for the values [L] of one row."""
        ...

    def common(self) -> Limits:
        """The budget of one row whose sets fit every client."""
        ...


@dataclass(frozen=True)
class Counts:
    """Budgets in numbers of layers.

    Attributes:
        budgets: [D], layers a client may train, at most L.
    """

    budgets: NDArray[np.int64]

    def best_sets(self, values: Floats) -> Mask:
        """See `Limits.best_sets`: the largest positive values; of equal ones the earlier layers."""
        layers = values.shape[-1]
        place = np.minimum(layers - self.budgets, layers - 1)[:, None]
        places = np.broadcast_to(place, (*values.shape[:-1], 1))
        mask: Mask = values >= np.take_along_axis(np.sort(values), places, -1)
        mask &= values > 0
        mask &= self.budgets[:, None] > 0
        ties = np.nonzero(np.count_nonzero(mask, axis=-1) > self.budgets)
        if len(ties[0]):
            order = np.argsort(-values[ties], axis=-1, kind="stable")
            rank = np.argsort(order, axis=-1, kind="stable")
            mask[ties] &= rank < self.budgets[ties[-1]][:, None]
        return mask

    def relaxed(self, values: Floats) -> tuple[Mask, Floats]:
        """See `Limits.relaxed`: the best sets."""
        mask = self.best_sets(values)
        return mask, np.sum(values, axis=1, where=mask)

    def fits(self, layers: Mask) -> Mask:
        """See `Limits.fits`."""
        fitting: Mask = np.count_nonzero(layers, axis=-1) <= self.budgets
        return fitting

    def best_set(self, row: int, values: Floats) -> Mask:
        """See `Limits.best_set`."""
        found: Mask = Counts(self.budgets[row : row + 1]).best_sets(values[None])[0]
        return found

    def common(self) -> Counts:
        """See `Limits.common`."""
        return Counts(self.budgets.min(keepdims=True))
