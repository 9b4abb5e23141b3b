"""Dealing samples to clients, each with a part to train on and one of its own to test on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.partition import make_partitioner
from fedtlu_fast.data.population import Indices, Shares
from fedtlu_fast.errors import InputError
from fedtlu_fast.randomness import generator


@dataclass(frozen=True)
class Attribute:
    """Something that every sample is, or is from: a document, a genre, a label.

    Attributes:
        codes: [N], for each sample, which of the names.
        names: of the codes.
    """

    codes: Indices
    names: tuple[str, ...]


def deal(config: RunConfig, attributes: Mapping[str, Attribute]) -> tuple[Shares, Shares]:
    """Which samples each client trains on, and which it tests on.

    Args:
        config: `clients`, `partition` and the seed.
        attributes: of the samples; the partition goes by the one that its `by` names, or by the first.

    Returns:
        Shares to train on and to test on: for each client one sample of either or more, no sample twice.

    Raises:
        InputError: the samples cannot be dealt like this to so many clients.
    """
    columns = {name: attribute.codes for name, attribute in attributes.items()}
    by, chance = config.partition.by or next(iter(columns)), generator(config.seed, "partition")
    samples = len(next(iter(columns.values())))
    partitioner = make_partitioner(config.partition, config.clients, samples, by)
    parts = partitioner.partition(columns, chance)
    _check_least(config, parts)
    split = [_train_and_own_test(config, index, part) for index, part in enumerate(parts)]
    return Shares.of([rows for rows, _ in split]), Shares.of([rows for _, rows in split])


def _check_least(config: RunConfig, parts: Sequence[Indices]) -> None:
    poorest = min(range(len(parts)), key=lambda client: len(parts[client]))
    if len(parts[poorest]) < config.partition.min_samples:
        raise InputError(
            "partition.min_samples",
            config.partition.min_samples,
            f"at most {len(parts[poorest])}, what client {poorest} gets by partition={config.partition.name}",
            "Use fewer clients, a smaller min_samples (2 is the least) or another partition.",
        )


def _train_and_own_test(config: RunConfig, index: int, rows: Indices) -> tuple[Indices, Indices]:
    held = max(1, round(len(rows) * config.data.local_fraction))
    if len(rows) - held < 1:
        raise InputError(
            f"clients[{index}]",
            f"{len(rows)} samples",
            f"at least one to train on and one to test on, {config.data.local_fraction:g} of them",
            "Use fewer clients, a larger partition.min_samples or a smaller data.local_fraction.",
        )
    shuffled = generator(config.seed, "local split", client=index).permutation(rows)
    return np.sort(shuffled[held:]), np.sort(shuffled[:held])
