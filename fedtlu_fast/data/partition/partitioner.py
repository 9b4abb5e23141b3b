"""What a partitioner is, and what several of them share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError, not_one_of

Columns = Mapping[str, Indices]
"""By name, what is known of each of the N samples: [N] codes, such as the number of its label or document."""


class Partitioner(Protocol):
    """Deals samples to clients.

    Names and arguments are those of Flower Datasets. Two of its arguments are none here: `seed`, since
    chance comes from the generator that `partition` is given, and `shuffle`, since the order within a client
    means nothing (which samples it trains on and in what order is drawn later).
    """

    def partition(self, columns: Columns, generator: np.random.Generator) -> list[Indices]:
        """Sample indices of each client; no sample is given to two of them.

        Args:
            columns: what is known of the samples; at least the column that `partition_by` names.
            generator: source of chance.

        Raises:
            InputError: these samples cannot be dealt to so many clients.
        """
        ...


def column(columns: Columns, name: str) -> Indices:
    """The column that a partitioner goes by.

    Raises:
        InputError: there is none of that name.
    """
    if name not in columns:
        raise not_one_of("partition.by", name, columns)
    return columns[name]


def sample_count(columns: Columns) -> int:
    """N."""
    return len(next(iter(columns.values())))


def check_enough(samples: int, clients: int, least: int) -> None:
    """Makes sure that each client can get `least` samples.

    Raises:
        InputError: there are too few.
    """
    if samples < clients * least:
        expected = f"at most {samples // max(least, 1)}: there are {samples} samples and each gets {least}"
        raise InputError("clients", clients, expected)


def by_value(codes: Indices) -> list[Indices]:
    """The samples of each value that occurs, ascending; the values in order."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order])) + 1
    return np.split(order, starts) if len(order) else []
