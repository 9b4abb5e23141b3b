"""Label skew: every client has samples of so many values and of no other."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedtlu_fast.data.partition.partitioner import Partitioner, ToDeal, by_value
from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part

ClassAssignment = Literal["random", "deterministic", "first-deterministic"]


@part
class Pathological(Partitioner):
    """Every client has exactly `num_classes_per_partition` values; a value's holders share it equally.

    After arXiv 2102.02079, as in Flower Datasets. Samples of a value that no client has are given to
    nobody. Ours: each holder of a value gets at least its part of a client's least samples of it. A value is
    drawn only as long as there is enough of it for one holder more; with large values that never matters.

    Attributes:
        num_classes_per_partition: values of each client.
        by: what of the samples it goes by, such as label or document; null: the data's first.
        class_assignment_mode: ``random``: drawn for each client. ``deterministic``: client c has the values
            c, c + 1, ... (from the last one on to the first). ``first-deterministic``: its first value is
            value c, likewise, and the others are drawn.
    """

    num_classes_per_partition: Annotated[int, Field(ge=1)] = 2
    by: str | None = None
    class_assignment_mode: ClassAssignment = "random"

    def partition(self, to_deal: ToDeal, generator: np.random.Generator) -> list[Indices]:
        """See `Partitioner.partition`."""
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
        """[C, V]: which client has which values.

        Args:
            to_deal: samples and clients.
            sizes: [V], samples of each value.
            generator: source of chance.
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
        """The values of one client; fewer than it should have when too few have room for another holder."""
        count, first = self.num_classes_per_partition, client % len(room)
        if self.class_assignment_mode == "deterministic":
            return [(first + place) % len(room) for place in range(count)]
        own = [first] if self.class_assignment_mode == "first-deterministic" else []
        free = np.setdiff1d(np.flatnonzero(room > 0), own)
        size = min(count - len(own), len(free))
        return [*own, *generator.choice(free, size=size, replace=False).tolist()]
