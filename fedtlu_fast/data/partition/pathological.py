"""Label skew: every client has samples of so many values and of no other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.data.partition.partitioner import Columns, by_value, column
from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError

ClassAssignment = Literal["random", "deterministic", "first-deterministic"]


@dataclass(frozen=True)
class PathologicalPartitioner:
    """Every client has exactly `num_classes_per_partition` values; a value's holders share it equally.

    After arXiv 2102.02079, as in Flower Datasets. Samples of a value that no client has are given to
    nobody. Ours: each holder of a value gets at least its part of `min_partition_size` of it. A value is
    drawn only as long as there is enough of it for one holder more; with large values that never matters.

    Attributes:
        num_partitions: clients.
        partition_by: column.
        num_classes_per_partition: values of each client.
        class_assignment_mode: ``random``: drawn for each client. ``deterministic``: client c has the values
            c, c + 1, ... (from the last one on to the first). ``first-deterministic``: its first value is
            value c, likewise, and the others are drawn.
        min_partition_size: no client gets fewer.
    """

    num_partitions: int
    partition_by: str
    num_classes_per_partition: int
    class_assignment_mode: ClassAssignment = "random"
    min_partition_size: int = 1

    def partition(self, columns: Columns, generator: np.random.Generator) -> list[Indices]:
        """See `Partitioner.partition`."""
        values = by_value(column(columns, self.partition_by))
        if self.num_classes_per_partition > len(values):
            raise InputError(
                "partition.num_classes_per_partition",
                self.num_classes_per_partition,
                f"at most {len(values)}, the values of {self.partition_by}",
            )
        has = self._assigned(np.array([len(samples) for samples in values]), generator)
        parts: list[list[Indices]] = [[] for _ in range(self.num_partitions)]
        for value, samples in enumerate(values):
            holders = np.flatnonzero(has[:, value]).tolist()
            if holders:
                shares = np.array_split(generator.permutation(samples), len(holders))
                for client, share in zip(holders, shares, strict=True):
                    parts[client].append(share)
        return [np.concatenate(part) for part in parts]

    def _assigned(self, sizes: Indices, generator: np.random.Generator) -> NDArray[np.bool_]:
        """[C, V]: who has which values.

        Args:
            sizes: [V], samples of each value.
            generator: source of chance.
        """
        count = self.num_classes_per_partition
        least = max(1, -(-self.min_partition_size // count))
        room = sizes // least
        has = np.zeros((self.num_partitions, len(sizes)), dtype=np.bool_)
        for client in range(self.num_partitions):
            own = self._values_of(client, room, generator)
            has[client, own] = True
            room[own] -= 1
            if len(own) < count or room.min() < 0:
                raise InputError(
                    "clients",
                    self.num_partitions,
                    f"at most {client}: so many can have {least} samples or more of each of {count} values "
                    f"of {self.partition_by}",
                    "Use fewer clients, or another num_classes_per_partition, min_samples or partition.by.",
                )
        return has

    def _values_of(self, client: int, room: Indices, generator: np.random.Generator) -> list[int]:
        """The values of one client; fewer than it should have when too few have room for another holder."""
        count, first = self.num_classes_per_partition, client % len(room)
        if self.class_assignment_mode == "deterministic":
            return [(first + place) % len(room) for place in range(count)]
        own = [first] if self.class_assignment_mode == "first-deterministic" else []
        free = np.setdiff1d(np.flatnonzero(room > 0), own)
        size = min(count - len(own), len(free))
        return [*own, *generator.choice(free, size=size, replace=False).tolist()]
