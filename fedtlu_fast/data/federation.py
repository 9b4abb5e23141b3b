"""Deals encoded samples to the clients of a federation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedtlu_fast.data.dealing import deal
from fedtlu_fast.data.federated import Encoded, FederatedData
from fedtlu_fast.data.partition import Partitioner
from fedtlu_fast.data.population import ArrayPopulation, Indices, Samples, digest
from fedtlu_fast.randomness import generator


def public_rows(samples: int, share: float, seed: int) -> Indices:
    """Draws the samples that are set aside for the pre-training and dealt to no client.

    Args:
        samples: number of samples.
        share: share of the samples that is set aside; at least one sample is.
        seed: the run's seed.

    Returns:
        The places of these samples, ascending.
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
        samples: the samples of all clients.
        public: places of the samples that are kept for the pre-training and dealt to no client.
        clients: number of clients.
        partitioner: deals the samples.
        min_samples: smallest number of samples that a client may get.
        local_fraction: share of each client's samples that is kept for its own test.
        seed: the run's seed.

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
