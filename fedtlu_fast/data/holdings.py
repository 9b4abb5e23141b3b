"""Who holds what: how much each client has, of which values, and how far that is from the others."""

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
"""Of more clients than this only so many are looked at, drawn by the run's seed."""


@dataclass(frozen=True)
class Spread:
    """How the values of an attribute are spread over S clients, without the zeros: T pairs that occur.

    Attributes:
        names: of the V values.
        clients: [T], places from 0 to S - 1, ascending.
        values: [T], numbers of values, ascending within a client.
        counts: [T], samples that the client holds of the value, to train or to test on.
    """

    names: tuple[str, ...]
    clients: Indices
    values: Indices
    counts: Indices

    @property
    def overall(self) -> Vector:
        """[V], shares of the values in all that these clients hold."""
        held = np.bincount(self.values, self.counts, len(self.names))
        return np.asarray(held / max(held.sum(), 1))

    @property
    def shares(self) -> Vector:
        """[T], of what the client holds."""
        held = np.bincount(self.clients, self.counts)
        return np.asarray(self.counts / held[self.clients])

    def distinct(self) -> Indices:
        """[S], how many different values a client holds."""
        return np.bincount(self.clients)

    def entropy(self) -> Vector:
        """[S], of a client's shares, in nats: 0 with one value, log V when all are held alike."""
        shares = self.shares
        # From below: a client with one value has -0.0 otherwise.
        return np.maximum(0.0, -np.bincount(self.clients, shares * np.log(shares)))

    def distance(self) -> Vector:
        """[S], total variation between a client's shares and the overall ones: 0 alike, 1 nothing in common.

        Half the sum of the absolute differences; values that the client does not hold differ by all they
        have overall.
        """
        there = self.overall[self.values]
        differences = np.abs(self.shares - there) - there
        return np.asarray((np.bincount(self.clients, differences) + 1) / 2)


@dataclass(frozen=True)
class Holdings:
    """What the clients hold, or those of them that were looked at.

    Attributes:
        clients: in the federation.
        looked_at: [S], their numbers, ascending.
        train: [S], samples that they train on.
        own_test: [S], samples that they test on.
        spreads: by attribute; labels where nothing else is known of a classification.
        by: the attribute that the partition goes by, or the first; None when none is known.
        left_over: samples that no client holds; None when that is not known.
    """

    clients: int
    looked_at: Indices
    train: Indices
    own_test: Indices
    spreads: Mapping[str, Spread]
    by: str | None
    left_over: int | None


def look(data: FederatedData, seed: int, by: str | None, *, labelled: bool) -> Holdings:
    """Counts what the clients hold: all of them, or `MOST_CLIENTS` drawn by the seed.

    Args:
        data: of the federation.
        seed: of the draw.
        by: the attribute that the partition goes by; None for the first.
        labelled: whether each sample has a label, its last tensor.

    Raises:
        InputError: what a client holds cannot be.
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
    """From the values of every client's samples.

    Args:
        codes: for each client, of each of its samples, the number of the value.
        names: of the values.
    """
    clients = np.repeat(np.arange(len(codes)), [len(own) for own in codes])
    pairs, counts = np.unique(clients * len(names) + np.concatenate(codes), return_counts=True)
    return Spread(names, pairs // len(names), pairs % len(names), counts)


def five_numbers(values: Indices | Vector) -> dict[str, float]:
    """Minimum, quartiles, maximum, and the mean."""
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
    """Of a classification's samples the last tensor is the label."""
    return np.concatenate([part.all()[-1].numpy() for part in (own, test) if len(part)])
