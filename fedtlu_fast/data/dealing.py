"""Dealing samples to clients, each with a part to train on and one of its own to test on."""

from __future__ import annotations

from collections.abc import Mapping
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
        attributes: of the samples; the first is what the partition goes by.

    Raises:
        InputError: too few samples for so many clients.
    """
    by = next(iter(attributes.values()))
    partitioner = make_partitioner(config.partition, config.clients)
    parts = partitioner.partition(by.codes, generator(config.seed, "partition"))
    split = [_train_and_own_test(config, index, part) for index, part in enumerate(parts)]
    return Shares.of([rows for rows, _ in split]), Shares.of([rows for _, rows in split])


def _train_and_own_test(config: RunConfig, index: int, rows: Indices) -> tuple[Indices, Indices]:
    held = max(1, round(len(rows) * config.data.local_fraction))
    if len(rows) - held < 1:
        raise InputError(
            f"clients[{index}]", f"{len(rows)} samples", "at least one to train on and one to test on"
        )
    shuffled = generator(config.seed, "local split", client=index).permutation(rows)
    return np.sort(shuffled[held:]), np.sort(shuffled[:held])
