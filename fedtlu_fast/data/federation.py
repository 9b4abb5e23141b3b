"""Samples dealt to the clients of a federation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedtlu_fast.data.dealing import deal
from fedtlu_fast.data.federated import Encoded, FederatedData
from fedtlu_fast.data.partition import Partitioner
from fedtlu_fast.data.population import ArrayPopulation, Indices, Samples, digest
from fedtlu_fast.randomness import generator


def public_rows(samples: int, share: float, seed: int) -> Indices:
    """Which of so many samples no client gets, because the pre-training has them; ascending.

    Args:
        samples: how many there are.
        share: of them that is set aside; at least one is.
        seed: of the draw.
    """
    order = generator(seed, "public samples").permutation(samples)
    return np.sort(order[: max(1, round(share * samples))])


def federate(
    samples: Encoded,
    public: Indices,
    *,
    clients: int,
    partitioner: Partitioner,
    min_samples: int,
    local_fraction: float,
    seed: int,
) -> FederatedData:
    """Deals samples to clients.

    Args:
        samples: of all clients.
        public: rows that no client gets; they are kept for a pre-training.
        clients: how many.
        partitioner: says who gets what.
        min_samples: no client gets fewer.
        local_fraction: the share of each client's samples that is kept for its own test.
        seed: of the draws.

    Raises:
        InputError: see `deal`.
    """
    pool, test = samples.train, samples.test
    rows = np.setdiff1d(np.arange(len(pool[0])), public)
    private = {name: replace(own, codes=own.codes[rows]) for name, own in samples.attributes.items()}
    dealt = deal(private, clients, partitioner, min_samples, local_fraction, seed)
    shares, own_tests = (replace(part, rows=rows[part.rows]) for part in dealt)
    held = [part[client] for client in range(clients) for part in (shares, own_tests)]
    population = ArrayPopulation(
        pool=pool,
        shares=shares,
        own_tests=own_tests,
        test=test,
        fingerprint=digest([*(part.numpy() for part in (*pool, *test)), *held]),
    )
    return FederatedData(
        population=population,
        inputs=samples.inputs,
        outputs=samples.outputs,
        origin=samples.origin,
        attributes=samples.attributes,
        labels=samples.labels,
        vocabulary=samples.vocabulary,
        padding=samples.padding,
        pixels=samples.pixels,
        public=Samples(pool, public) if len(public) else None,
    )
