"""Label skew: every client has samples of so many values and of no other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedtlu_fast.data.partition.partitioner import Columns, by_value, column
from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError

ClassAssignment = Literal["random", "deterministic", "first-deterministic"]


@dataclass(frozen=True)
class PathologicalPartitioner:
    """Every client has exactly `num_classes_per_partition` values; a value's holders share it equally.

    After arXiv 2102.02079, as in Flower Datasets. Samples of a value that no client has are given to
    nobody. Ours: a value with fewer samples than holders is an error.

    Attributes:
        num_partitions: clients.
        partition_by: column.
        num_classes_per_partition: values of each client.
        class_assignment_mode: ``random``: drawn for each client. ``deterministic``: client c has the values
            c, c + 1, ... (from the last one on to the first). ``first-deterministic``: its first value is
            value c, likewise, and the others are drawn.
    """

    num_partitions: int
    partition_by: str
    num_classes_per_partition: int
    class_assignment_mode: ClassAssignment = "random"

    def partition(self, columns: Columns, generator: np.random.Generator) -> list[Indices]:
        """See `Partitioner.partition`."""
        values = by_value(column(columns, self.partition_by))
        if self.num_classes_per_partition > len(values):
            raise InputError(
                "partition.num_classes_per_partition",
                self.num_classes_per_partition,
                f"at most {len(values)}, the values of {self.partition_by}",
            )
        has = np.zeros((self.num_partitions, len(values)), dtype=np.bool_)
        for client in range(self.num_partitions):
            has[client, self._values_of(client, len(values), generator)] = True
        parts: list[list[Indices]] = [[] for _ in range(self.num_partitions)]
        for value, samples in enumerate(values):
            holders = np.flatnonzero(has[:, value]).tolist()
            if len(holders) > len(samples):
                raise InputError(
                    "clients",
                    self.num_partitions,
                    f"fewer: a value of {self.partition_by} has {len(samples)} samples and "
                    f"{len(holders)} clients that are to share it",
                    "Use fewer clients or classes for each, or another partition.by.",
                )
            if holders:
                shares = np.array_split(generator.permutation(samples), len(holders))
                for client, share in zip(holders, shares, strict=True):
                    parts[client].append(share)
        return [np.concatenate(part) for part in parts]

    def _values_of(self, client: int, values: int, generator: np.random.Generator) -> Indices:
        count, first = self.num_classes_per_partition, client % values
        if self.class_assignment_mode == "deterministic":
            return (first + np.arange(count)) % values
        if self.class_assignment_mode == "random":
            return generator.choice(values, size=count, replace=False)
        others = generator.choice(values - 1, size=count - 1, replace=False) if count > 1 else np.arange(0)
        return np.array([first, *(others + (others >= first))])
