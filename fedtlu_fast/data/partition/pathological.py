"""Label skew: every client has samples of a fixed number of values."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from fedtlu_fast.data.partition.partitioner import Partitioner, ToDeal, by_value
from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part

ClassAssignment = Literal["random", "deterministic", "first-deterministic"]


@part
class Pathological(Partitioner):
    """Every client has exactly `num_classes_per_partition` values; the holders of a value share it equally.

    Source: arXiv 2102.02079, as in Flower Datasets. Samples of a value that no client has are not dealt.
        Ours:
    each holder of a value gets at least ``ceil(least / num_classes_per_partition)`` samples of it, where
    `least` is the smallest number of samples that a client needs. A value is drawn only while it has enough
    samples for one more holder, which matters for small values only.

    Attributes:
        num_classes_per_partition: number of values of each client.
        by: the attribute by which samples are dealt, such as label or document; null: the data's first.
        class_assignment_mode: ``random``: each client's values are drawn. ``deterministic``: client c has the
            values c, c + 1, ..., modulo their number. ``first-deterministic``: the first value of client c is
            value c modulo their number, and the others are drawn.
    """

    num_classes_per_partition: Annotated[int, Field(ge=1)] = 2
    by: str | None = None
    class_assignment_mode: ClassAssignment = "random"

    @override
    def partition(self, to_deal: ToDeal, generator: np.random.Generator) -> list[Indices]:
        by, values = to_deal.name(self.by), by_value(to_deal.column(self.by))
        if self.num_classes_per_partition > len(values):
            expected = f"at most {len(values)}, the values of {by}"
            raise InputError("num_classes_per_partition", self.num_classes_per_partition, expected)
        has = self._assigned(to_deal, np.array([len(samples) for samples in values]), generator)
        parts: list[list[Indices]] = [[] for _ in range(to_deal.clients)]
        for value, samples in enumerate(values):
            holders = np.flatnonzero(has[:, value]).tolist()
            if holders:
                shares = np.array_split(generator.permutation(samples), len(holders))
                for client, share in zip(holders, shares, strict=True):
                    parts[client].append(share)
        return [np.concatenate(own) for own in parts]

    def _assigned(self, to_deal: ToDeal, sizes: Indices, generator: np.random.Generator) -> NDArray[np.bool_]:
        """Returns [C, V] bool, which is true where a client has a value.

        Args:
            to_deal: the samples and the number of clients.
            sizes: [V], number of samples of each value.
            generator: the source of randomness.
        """
        count = self.num_classes_per_partition
        least = max(1, -(-to_deal.least // count))
        room = sizes // least
        has = np.zeros((to_deal.clients, len(sizes)), dtype=np.bool_)
        for client in range(to_deal.clients):
            own = self._values_of(client, room, generator)
            has[client, own] = True
            room[own] -= 1
            if len(own) < count or room.min() < 0:
                raise InputError(
                    "clients",
                    to_deal.clients,
                    f"at most {client}: so many can have {least} samples or more of each of {count} values "
                    f"of {to_deal.name(self.by)}",
                    "Use fewer clients, or another num_classes_per_partition, min_samples or partition.by.",
                )
        return has

    def _values_of(self, client: int, room: Indices, generator: np.random.Generator) -> list[int]:
        """Returns the values of one client: fewer than it needs if too few values have room for a holder."""
        count, first = self.num_classes_per_partition, client % len(room)
        if self.class_assignment_mode == "deterministic":
            return [(first + place) % len(room) for place in range(count)]
        own = [first] if self.class_assignment_mode == "first-deterministic" else []
        free = np.setdiff1d(np.flatnonzero(room > 0), own)
        size = min(count - len(own), len(free))
        return [*own, *generator.choice(free, size=size, replace=False).tolist()]
