"""Malicious clients that agree on the updates that they send."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import NormalDist
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.client_steps.step import Arrival, ServerContext, ServerHalf
from fedtlu_fast.client_steps.threats.threat import Strength, Threat
from fedtlu_fast.parts import part


@part
class ALittleIsEnough(Threat):
    """Every malicious client sends mean - z std of the malicious clients' honest updates (arXiv 1902.06156).

    The update of Baruch et al. is large enough to do harm and small enough to hide among honest clients.
    Malicious clients know each other's updates and no others.

    Attributes:
        strength: z, more than 0; None: the largest z with which a majority of the cohort still seems to agree
            with the malicious clients (section 3 of the paper).
    """

    strength: Strength | None = None
    needs_each: ClassVar[bool] = True

    @override
    def server_half(self, server: ServerContext) -> ServerHalf:
        return _Colluders(self, server)


class _Colluders(ServerHalf):
    """Holds the colluders' honest updates back, and passes the crafted update on in place of each."""

    def __init__(self, step: ALittleIsEnough, server: ServerContext) -> None:
        self._step, self._server = step, server
        self._honest = Spread(server.params)
        self._held: list[Arrival] = []

    @override
    def receive(self, arrival: Arrival) -> Arrival | None:
        self._honest.add_(arrival.vectors[0])
        self._held.append(arrival)
        return None

    @override
    def finish(self) -> Iterable[Arrival]:
        if not self._held:
            return
        count, cohort = len(self._held), len(self._server.cohort)
        z = hidden_z(count, cohort) if self._step.strength is None else self._step.strength
        crafted = self._honest.mean - z * self._honest.std()
        for arrival in self._held:
            yield Arrival(arrival.clients, (crafted, self._server.buffers), True, arrival.weight)


class Spread:
    """Mean and standard deviation of vectors that arrive one at a time (Welford), in O(P) memory.

    Attributes:
        mean: [P] float32, the mean so far; empty before the first vector.
        count: number of vectors so far.
    """

    def __init__(self, like: Tensor) -> None:
        # Memory is allocated with the first vector, because most rounds have no colluders.
        self._like, self.mean, self._m2 = like, like[:0], like[:0]
        self.count = 0

    def add_(self, vector: Tensor) -> None:
        """Adds one vector [P]."""
        if not self.count:
            self.mean, self._m2 = torch.zeros_like(self._like), torch.zeros_like(self._like)
        self.count += 1
        gap = vector - self.mean
        self.mean.add_(gap, alpha=1 / self.count)
        self._m2.addcmul_(gap, vector - self.mean)

    def std(self) -> Tensor:
        """Returns [P], the population standard deviation of the vectors so far."""
        return (self._m2 / self.count).sqrt()


def hidden_z(attackers: int, cohort: int) -> float:
    """Returns the largest z with which attackers seem to be part of a majority (section 3 of the paper)."""
    honest = cohort - attackers
    if honest < 1:
        return 1.0
    supporters = cohort // 2 + 1 - attackers
    share = (honest - supporters) / honest
    # A majority of attackers has no bound (z is cut at 0.99); very few attackers gain nothing (z is 0).
    return max(0.0, NormalDist().inv_cdf(min(max(share, 0.01), 0.99)))
