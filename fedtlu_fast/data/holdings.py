"""Measures what the clients hold: how many samples, of which values, and how far each is from the whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.data.federated import FederatedData
from fedtlu_fast.data.population import Indices, Samples
from fedtlu_fast.randomness import generator

Vector = NDArray[np.float64]

MOST_CLIENTS = 10_000
"""Largest number of clients that are counted; of more clients so many are drawn by the run's seed."""


@dataclass(frozen=True)
class Spread:
    """The counts of an attribute's values at S clients, as T pairs of client and value that occur.

    Attributes:
        names: [V], names of the values.
        clients: [T] int64, places of the clients, from 0 to S - 1, ascending.
        values: [T] int64, codes of the values, ascending within a client.
        counts: [T] int64, the number of the client's samples with this value, training and own test together.
    """

    names: tuple[str, ...]
    clients: Indices
    values: Indices
    counts: Indices

    @property
    def overall(self) -> Vector:
        """[V] float64, the share of each value in the samples of all these clients."""
        held = np.bincount(self.values, self.counts, len(self.names))
        return np.asarray(held / max(held.sum(), 1))

    @property
    def shares(self) -> Vector:
        """[T] float64, the share of the value in the client's samples."""
        held = np.bincount(self.clients, self.counts)
        return np.asarray(self.counts / held[self.clients])

    def distinct(self) -> Indices:
        """Returns [S] int64, the number of different values that each client holds."""
        return np.bincount(self.clients)

    def entropy(self) -> Vector:
        """Returns [S], the entropy of each client's shares in nats: 0 for one value, log V for equal ones."""
        shares = self.shares
        # The maximum turns the -0.0 of a client with one value into 0.0.
        return np.maximum(0.0, -np.bincount(self.clients, shares * np.log(shares)))

    def distance(self) -> Vector:
        """Returns [S], the total variation distance between each client's shares and the overall shares.

        It is half the sum of the absolute differences over all V values: 0 if the shares are equal, 1 if they
        have no value in common.
        """
        there = self.overall[self.values]
        differences = np.abs(self.shares - there) - there
        return np.asarray((np.bincount(self.clients, differences) + 1) / 2)


@dataclass(frozen=True)
class Holdings:
    """The samples that all clients, or S drawn ones, hold.

    Attributes:
        clients: number of clients in the federation.
        looked_at: [S] int64, numbers of the clients that were counted, ascending.
        train: [S] int64, their numbers of training samples.
        own_test: [S] int64, their numbers of own test samples.
        spreads: the spread of every attribute, by name; of a classification without attributes that of the
            labels.
        by: the attribute by which the partition deals, or the first; None: there is no attribute.
        left_over: number of samples that no client holds; None: unknown, because not all clients were counted
            or the samples have no attribute.
    """

    clients: int
    looked_at: Indices
    train: Indices
    own_test: Indices
    spreads: Mapping[str, Spread]
    by: str | None
    left_over: int | None


def look(data: FederatedData, seed: int, by: str | None, *, labelled: bool) -> Holdings:
    """Counts the samples of all clients, or of `MOST_CLIENTS` drawn ones.

    Args:
        data: the federation's data.
        seed: the run's seed, for the draw.
        by: the attribute by which the partition deals; None: the first.
        labelled: whether the last tensor of each sample is its label.

    Raises:
        InputError: a client's samples are invalid, for example rows outside the pool.
    """
    clients = data.population.clients
    looked_at = _some(clients, seed)
    held = [(data.population.train(client), data.population.held_out(client)) for client in looked_at]
    train = np.array([len(own) for own, _ in held], dtype=np.int64)
    own_test = np.array([len(test) for _, test in held], dtype=np.int64)
    names = {name: attribute.names for name, attribute in data.attributes.items()}
    codes = {
        name: [attribute.codes[rows] for rows in _rows(held)] for name, attribute in data.attributes.items()
    }
    if not codes and labelled:
        names = {"label": tuple(map(str, range(data.outputs)))}
        codes = {"label": [_labels(own, test) for own, test in held]}
    spreads = {name: spread(codes[name], names[name]) for name in codes}
    left_over = None
    if data.attributes and len(looked_at) == clients:
        samples = len(next(iter(data.attributes.values())).codes)
        left_over = samples - int(train.sum() + own_test.sum())
    by = by if by in spreads else next(iter(spreads), None)
    return Holdings(clients, looked_at, train, own_test, spreads, by, left_over)


def spread(codes: list[Indices], names: tuple[str, ...]) -> Spread:
    """Makes a `Spread` from the values of every client's samples.

    Args:
        codes: for each client, the codes of its samples' values.
        names: names of the values, in the order of their codes.
    """
    clients = np.repeat(np.arange(len(codes)), [len(own) for own in codes])
    pairs, counts = np.unique(clients * len(names) + np.concatenate(codes), return_counts=True)
    return Spread(names, pairs // len(names), pairs % len(names), counts)


def five_numbers(values: Indices | Vector) -> dict[str, float]:
    """Returns minimum, quartiles, maximum and mean by name."""
    names = ("min", "q1", "median", "q3", "max")
    found = np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist()
    return {**dict(zip(names, found, strict=True)), "mean": float(np.mean(values))}


def _some(clients: int, seed: int) -> Indices:
    if clients <= MOST_CLIENTS:
        return np.arange(clients)
    drawn = generator(seed, "looked at").choice(clients, size=MOST_CLIENTS, replace=False)
    return np.sort(drawn)


def _rows(held: list[tuple[Samples, Samples]]) -> Iterator[Indices]:
    return (np.concatenate([own.rows, test.rows]) for own, test in held)


def _labels(own: Samples, test: Samples) -> Indices:
    """Returns the labels of a client's samples, which are the last tensor of a classification's samples."""
    return np.concatenate([part.all()[-1].numpy() for part in (own, test) if len(part)])
