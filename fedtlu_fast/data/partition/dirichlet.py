"""Label skew: each value's samples are spread unevenly over the clients."""

from __future__ import annotations

import heapq

import numpy as np
from typing_extensions import override

from fedtlu_fast.data.partition.partitioner import Alpha, Partitioner, ToDeal
from fedtlu_fast.data.population import Indices
from fedtlu_fast.parts import part


@part
class Dirichlet(Partitioner):
    """Each value (label, document, genre) is spread over the clients by proportions from Dirichlet(alpha).

    Every sample is given to a client. Ours, where it departs from Flower Datasets: balancing is the default;
    clients with too few samples get some from the clients that hold most, where that library draws anew up to
    ten times and then raises an error; `alpha` is one number.

    Attributes:
        alpha: concentration, above 0; a small one is far from IID, a large one is close to it.
        by: the attribute by which samples are dealt, such as label or document; null: the data's first.
        self_balancing: whether a client that already holds an equal share gets no samples of further values.
    """

    alpha: Alpha = 0.1
    by: str | None = None
    self_balancing: bool = True

    @override
    def partition(self, to_deal: ToDeal, generator: np.random.Generator) -> list[Indices]:
        codes, clients = to_deal.column(self.by), to_deal.clients
        to_deal.check_enough(to_deal.least)
        held: list[list[int]] = [[] for _ in range(clients)]
        fair = len(codes) / clients
        for value in generator.permutation(np.unique(codes)):
            samples = generator.permutation(np.flatnonzero(codes == value))
            shares = generator.dirichlet(np.full(clients, self.alpha))
            if self.self_balancing:
                shares *= np.array([len(own) < fair for own in held])
            total = shares.sum()
            # With a very small alpha all proportions can underflow to zero.
            shares = shares / total if total > 0 else np.full(clients, 1 / clients)
            cuts = (np.cumsum(shares)[:-1] * len(samples)).astype(np.int64)
            for own, new in zip(held, np.split(samples, cuts), strict=True):
                own.extend(new.tolist())
        _hand_over_(held, to_deal.least)
        return [np.array(own, dtype=np.int64) for own in held]


def _hand_over_(held: list[list[int]], least: int) -> None:
    """Moves samples, one at a time, from the client that holds most to the client that holds least."""
    poor = [(len(own), client) for client, own in enumerate(held) if len(own) < least]
    rich = [(-len(own), client) for client, own in enumerate(held)]
    heapq.heapify(poor)
    heapq.heapify(rich)
    # While a client holds fewer than `least`, the richest client holds more, so it never becomes poor.
    while poor:
        (size, taker), (_, giver) = poor[0], rich[0]
        held[taker].append(held[giver].pop())
        heapq.heapreplace(rich, (-len(held[giver]), giver))
        if size + 1 < least:
            heapq.heapreplace(poor, (size + 1, taker))
        else:
            heapq.heappop(poor)
