"""Clients that are alike but for how much they hold."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.data.partition.partitioner import Partitioner, ToDeal
from fedtlu_fast.data.population import Indices
from fedtlu_fast.parts import part

Vector = NDArray[np.float64]


class SizePartitioner(Partitioner):
    """Shuffled samples, in shares that are a function of the client's number.

    Every sample is given to a client. Ours, where it departs from Flower Datasets: no client gets fewer than
    the least samples of a client, and clients above it share the rest by the rule; what rounding down leaves
    goes by the largest remainders, where in that library the last client gets all of it.
    """

    def partition(self, to_deal: ToDeal, generator: np.random.Generator) -> list[Indices]:
        """See `Partitioner.partition`."""
        to_deal.check_enough(to_deal.least)
        ends = np.cumsum(self._sizes(to_deal.samples, to_deal.clients, to_deal.least))
        return list(np.split(generator.permutation(to_deal.samples), ends[:-1]))

    def _sizes(self, samples: int, clients: int, least: int) -> Indices:
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

    @abstractmethod
    def _weights(self, numbers: Vector) -> Vector:
        """[C], ascending: what the sizes are proportional to; of the clients' numbers, from 1."""


def _whole(shares: Vector, total: int) -> Indices:
    """Ascending shares as whole numbers that add up to `total` and ascend: by the largest remainders."""
    sizes = np.floor(shares).astype(np.int64)
    # Of equal remainders the later one, which holds as much or more.
    first = np.lexsort((-np.arange(len(shares)), sizes - shares))
    sizes[first[: total - sizes.sum()]] += 1
    return sizes


@part
class Linear(SizePartitioner):
    """Client k, counted from 1, holds a share proportional to k."""

    def _weights(self, numbers: Vector) -> Vector:
        return numbers


@part
class Square(SizePartitioner):
    """Client k, counted from 1, holds a share proportional to k squared."""

    def _weights(self, numbers: Vector) -> Vector:
        return np.square(numbers)


@part
class Exponential(SizePartitioner):
    """Client k holds a share proportional to exp(k): each 2.7 times as much as the one before it."""

    def _weights(self, numbers: Vector) -> Vector:
        # Only proportions count, and exp(1000) would overflow.
        weights: Vector = np.exp(numbers - numbers[-1])
        return weights
