"""Clients that are alike but for how much they hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.data.partition.partitioner import Columns, check_enough, sample_count
from fedtlu_fast.data.population import Indices

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class _SizePartitioner:
    """Shuffled samples, in shares that are a function of the client's number.

    Every sample is given to a client. Ours, where it departs from Flower Datasets: no client gets fewer than
    `min_partition_size` samples, and those above it share the rest by the rule; what rounding down leaves
    goes by the largest remainders, where there the last client gets all of it.

    Attributes:
        num_partitions: clients.
        min_partition_size: no client gets fewer.
    """

    num_partitions: int
    min_partition_size: int = 1

    def partition(self, columns: Columns, generator: np.random.Generator) -> list[Indices]:
        """See `Partitioner.partition`."""
        samples = sample_count(columns)
        check_enough(samples, self.num_partitions, self.min_partition_size)
        ends = np.cumsum(self._sizes(samples))
        return list(np.split(generator.permutation(samples), ends[:-1]))

    def _sizes(self, samples: int) -> Indices:
        clients, least = self.num_partitions, self.min_partition_size
        weights = self._weights(np.arange(1, clients + 1, dtype=np.float64))
        sizes = np.full(clients, least, dtype=np.int64)
        # Weights ascend: those that get the least and no more are the first ones.
        for lifted in range(clients):
            rest = samples - lifted * least
            shares = rest * (weights[lifted:] / weights[lifted:].sum())
            if shares[0] >= least:
                sizes[lifted:] = _whole(shares, rest)
                break
        return sizes

    def _weights(self, numbers: Vector) -> Vector:
        """[C], ascending: what the sizes are proportional to; of the clients' numbers, from 1."""
        raise NotImplementedError


def _whole(shares: Vector, total: int) -> Indices:
    """Ascending shares as whole numbers that add up to `total` and ascend: by the largest remainders."""
    sizes = np.floor(shares).astype(np.int64)
    # Of equal remainders the later one, which holds as much or more.
    first = np.lexsort((-np.arange(len(shares)), sizes - shares))
    sizes[first[: total - sizes.sum()]] += 1
    return sizes


@dataclass(frozen=True)
class LinearPartitioner(_SizePartitioner):
    """Client k, counted from 1, holds a share proportional to k."""

    def _weights(self, numbers: Vector) -> Vector:
        return numbers


@dataclass(frozen=True)
class SquarePartitioner(_SizePartitioner):
    """Client k, counted from 1, holds a share proportional to k squared."""

    def _weights(self, numbers: Vector) -> Vector:
        return np.square(numbers)


@dataclass(frozen=True)
class ExponentialPartitioner(_SizePartitioner):
    """Client k holds a share proportional to exp(k): each 2.7 times as much as the one before it."""

    def _weights(self, numbers: Vector) -> Vector:
        # Only proportions count, and exp(1000) would overflow.
        weights: Vector = np.exp(numbers - numbers[-1])
        return weights
