"""Finds the best sets of layers within the clients' budgets: the clients' side of P1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Limits(Protocol):
    """Holds the budgets of D rows of clients."""

    def best_sets(self, values: Floats) -> Mask:
        """Returns each row's set with the largest value within its budget; it has positive values only.

        Args:
            values: [..., D, L], the value of each layer to each row.

        Returns:
            [..., D, L] bool; of sets with equal values always the same one.
        """
        ...

    def relaxed(self, values: Floats) -> tuple[Mask, Floats]:
        """Returns a set for each row that may exceed the budget, and an upper bound of the value within it.

        Args:
            values: [D, L], the value of each layer to each row.

        Returns:
            The sets [D, L] and their values [D]; no set within the budget has a larger value.
        """
        ...

    def fits(self, layers: Mask) -> Mask:
        """Tells whether the sets [..., D, L] are within their budgets, [..., D] bool."""
        ...

    def best_set(self, row: int, values: Floats) -> Mask:
        """Returns the best set [L] of one row for its values [L]; see `best_sets`."""
        ...

    def common(self) -> Limits:
        """Returns the limits of a single row whose sets fit every budget."""
        ...


@dataclass(frozen=True)
class Counts:
    """Limits the number of layers in a set.

    Attributes:
        budgets: [D], the number of layers that a client of each row may train, at most L.
    """

    budgets: NDArray[np.int64]

    def best_sets(self, values: Floats) -> Mask:
        """See `Limits.best_sets`; takes the largest positive values, and of equal ones the earlier layers."""
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
        """See `Limits.relaxed`; returns the best sets, which exceed no budget."""
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
