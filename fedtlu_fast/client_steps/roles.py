"""Which clients a step with a share is for, drawn once for a run.

The first such step takes the first clients of one shuffled order, the next step those that follow. So
different threats of the same share strike the same clients.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError
from fedtlu_fast.randomness import generator


class Roles:
    """Which steps each client takes."""

    def __init__(self, shares: Sequence[float | None], clients: int, seed: int) -> None:
        """Draws the clients of every step with a share: that share of all clients, rounded.

        Args:
            shares: of the steps, in their order; None: the step is for every client.
            clients: in the federation.
            seed: of the run.

        Raises:
            InputError: the shares are more than 1 in all.
        """
        self._all = [place for place, share in enumerate(shares) if share is None]
        self._struck: list[tuple[int, Indices]] = []
        some = [(place, share) for place, share in enumerate(shares) if share is not None]
        if some:
            total = sum(share for _, share in some)
            if total > 1:
                raise InputError("threats", f"shares of {total:g} in all", "at most 1")
            order = generator(seed, "threats").permutation(clients)
            ends = np.cumsum([share for _, share in some])
            cuts = np.rint(ends * clients).astype(np.int64)
            parts = [np.sort(part) for part in np.split(order, cuts)[: len(cuts)]]
            self._struck = [(place, part) for (place, _), part in zip(some, parts, strict=True)]

    def of(self, client: int) -> list[int]:
        """Places of the steps that this client takes, ascending."""
        role = self.role(client)
        return self._all if role is None else sorted([*self._all, role])

    def role(self, client: int) -> int | None:
        """The place of the client's step with a share; None: it has none."""
        for step, struck in self._struck:
            place = int(np.searchsorted(struck, client))
            if place < len(struck) and struck[place] == client:
                return step
        return None
