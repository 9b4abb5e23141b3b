"""Quantity skew: clients have samples of the same distribution, but different numbers of them."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fedtlu_fast.data.partition.partitioner import Partitioner, ToDeal
from fedtlu_fast.data.population import Indices
from fedtlu_fast.parts import part

Vector = NDArray[np.float64]


class SizePartitioner(Partitioner):
    """Deals shuffled samples in shares that are a function of the client's number.

    Every sample is given to a client. Ours, where it departs from Flower Datasets: every client gets at least
    the samples that a client needs, and the clients above that number share the rest by the rule; the samples
    that rounding down leaves go to the clients with the largest remainders, and not all to the last client.
    """

    @override
    def partition(self, to_deal: ToDeal, generator: np.random.Generator) -> list[Indices]:
        to_deal.check_enough(to_deal.least)
        ends = np.cumsum(self._sizes(to_deal.samples, to_deal.clients, to_deal.least))
        return list(np.split(generator.permutation(to_deal.samples), ends[:-1]))

    def _sizes(self, samples: int, clients: int, least: int) -> Indices:
        weights = self._weights(np.arange(1, clients + 1, dtype=np.float64))
        sizes = np.full(clients, least, dtype=np.int64)
        # Weights ascend, so the clients that are lifted to `least` are the first ones.
        for lifted in range(clients):
            rest = samples - lifted * least
            shares = rest * (weights[lifted:] / weights[lifted:].sum())
            if shares[0] >= least:
                sizes[lifted:] = _whole(shares, rest)
                break
        return sizes

    @abstractmethod
    def _weights(self, numbers: Vector) -> Vector:
        """Returns [C], ascending weights to which the sizes are proportional.

        Args:
            numbers: [C], the clients' numbers, counted from 1.
        """


def _whole(shares: Vector, total: int) -> Indices:
    """Rounds ascending shares to ascending whole numbers that sum to `total`, by the largest remainders."""
    sizes = np.floor(shares).astype(np.int64)
    # Among equal remainders the later one, so that the numbers still ascend.
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
    """Client k holds a share proportional to exp(k), 2.7 times the share of the client before it."""

    def _weights(self, numbers: Vector) -> Vector:
        # Only proportions count, and exp(1000) would overflow.
        weights: Vector = np.exp(numbers - numbers[-1])
        return weights
