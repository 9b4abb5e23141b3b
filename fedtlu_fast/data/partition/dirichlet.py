"""Label skew: each value's samples are spread unevenly over the clients."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from fedtlu_fast.data.partition.partitioner import Columns, check_enough, column
from fedtlu_fast.data.population import Indices


@dataclass(frozen=True)
class DirichletPartitioner:
    """Each value (label, document, genre) is spread over the clients by proportions from Dirichlet(alpha).

    Every sample is given to a client. With `self_balancing`, clients that already hold their equal share get
    nothing from further values. Ours, where it departs from Flower Datasets: balancing is the default; the
    least size is kept by those that hold most handing samples over, where that library draws anew up to ten
    times and then gives up; `alpha` is one number.

    Attributes:
        num_partitions: clients.
        partition_by: column.
        alpha: concentration; small is far from IID.
        min_partition_size: no client gets fewer.
        self_balancing: see above.
    """

    num_partitions: int
    partition_by: str
    alpha: float
    min_partition_size: int = 10
    self_balancing: bool = True

    def partition(self, columns: Columns, generator: np.random.Generator) -> list[Indices]:
        """See `Partitioner.partition`."""
        codes = column(columns, self.partition_by)
        check_enough(len(codes), self.num_partitions, self.min_partition_size)
        held: list[list[int]] = [[] for _ in range(self.num_partitions)]
        fair = len(codes) / self.num_partitions
        for value in generator.permutation(np.unique(codes)):
            samples = generator.permutation(np.flatnonzero(codes == value))
            shares = generator.dirichlet(np.full(self.num_partitions, self.alpha))
            if self.self_balancing:
                shares *= np.array([len(part) < fair for part in held])
            total = shares.sum()
            # Every proportion can underflow to zero for a very small alpha.
            shares = shares / total if total > 0 else np.full(self.num_partitions, 1 / self.num_partitions)
            cuts = (np.cumsum(shares)[:-1] * len(samples)).astype(np.int64)
            for part, new in zip(held, np.split(samples, cuts), strict=True):
                part.extend(new.tolist())
        _hand_over_(held, self.min_partition_size)
        return [np.array(part, dtype=np.int64) for part in held]


def _hand_over_(held: list[list[int]], least: int) -> None:
    """One sample at a time, from the client that holds most to the one that holds least."""
    poor = [(len(part), client) for client, part in enumerate(held) if len(part) < least]
    rich = [(-len(part), client) for client, part in enumerate(held)]
    heapq.heapify(poor)
    heapq.heapify(rich)
    # While anyone holds less than `least`, the richest holds more: so it never becomes a poor one.
    while poor:
        (size, taker), (_, giver) = poor[0], rich[0]
        held[taker].append(held[giver].pop())
        heapq.heapreplace(rich, (-len(held[giver]), giver))
        if size + 1 < least:
            heapq.heapreplace(poor, (size + 1, taker))
        else:
            heapq.heappop(poor)
