"""Draws, once for a run, the clients to which each step with a share applies.

The first of these steps takes the first clients of one shuffled order, and each further step takes the
clients that follow. Two runs whose threats differ but have the same share therefore have the same malicious
clients.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError
from fedtlu_fast.randomness import generator


class Roles:
    """The steps that each client takes."""

    def __init__(self, shares: Sequence[float | None], clients: int, seed: int) -> None:
        """Draws the clients of every step with a share; the share of all clients is rounded.

        Args:
            shares: the share of each step, in the order of the steps; None: the step applies to every client.
            clients: number of clients in the federation.
            seed: the run's seed.

        Raises:
            InputError: the sum of the shares is above 1.
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
        """Returns the places of the steps that this client takes, ascending."""
        role = self.role(client)
        return self._all if role is None else sorted([*self._all, role])

    def role(self, client: int) -> int | None:
        """Returns the place of the client's step with a share, or None if it has none."""
        for step, struck in self._struck:
            place = int(np.searchsorted(struck, client))
            if place < len(struck) and struck[place] == client:
                return step
        return None
