"""Clients that are what the samples come from: documents, speakers, genres, alone or in groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedtlu_fast.data.partition.partitioner import Columns, by_value, column
from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError

GroupMode = Literal["allow-smaller", "allow-bigger", "drop-reminder", "strict"]


@dataclass(frozen=True)
class NaturalIdPartitioner:
    """Whole values: one for each client, or several when there are fewer clients than values.

    Every sample is given to a client. Ours, where it departs from Flower Datasets: the number of clients is
    given. A value with fewer than `min_partition_size` samples is joined to the next one (the last to the
    one before it); with fewer clients, the next value always goes to the client that holds least. Nothing
    is drawn.

    Attributes:
        num_partitions: clients.
        partition_by: column.
        min_partition_size: no client gets fewer.
    """

    num_partitions: int
    partition_by: str
    min_partition_size: int = 1

    def partition(self, columns: Columns, generator: np.random.Generator) -> list[Indices]:
        """See `Partitioner.partition`."""
        values = by_value(column(columns, self.partition_by))
        return _shared_out(values, self.num_partitions, self.min_partition_size, self.partition_by)


@dataclass(frozen=True)
class GroupedNaturalIdPartitioner:
    """Groups of `group_size` values, in the order of the values: organisations instead of people.

    Ours, where it departs from Flower Datasets: the number of clients is given, and groups that are too
    small or too many are treated as `NaturalIdPartitioner` treats values. Nothing is drawn.

    Attributes:
        num_partitions: clients.
        partition_by: column.
        group_size: values in a group.
        mode: what happens to values that do not fill a group. ``allow-smaller``: they are the last group.
            ``allow-bigger``: they join the first group. ``drop-reminder``: they are given to nobody.
            ``strict``: an error.
        min_partition_size: no client gets fewer.
    """

    num_partitions: int
    partition_by: str
    group_size: int
    mode: GroupMode = "allow-smaller"
    min_partition_size: int = 1

    def partition(self, columns: Columns, generator: np.random.Generator) -> list[Indices]:
        """See `Partitioner.partition`."""
        values = by_value(column(columns, self.partition_by))
        groups = [np.concatenate(group) for group in self._groups(values)]
        what = f"groups of {self.group_size} values of {self.partition_by}"
        return _shared_out(groups, self.num_partitions, self.min_partition_size, what)

    def _groups(self, values: Sequence[Indices]) -> list[list[Indices]]:
        size, left = self.group_size, len(values) % self.group_size
        if left and self.mode == "strict":
            raise InputError(
                "partition.group_size",
                size,
                f"a divisor of {len(values)}, the values of {self.partition_by}, with group_mode=strict",
            )
        whole, rest = list(values[: len(values) - left]), list(values[len(values) - left :])
        groups = [whole[start : start + size] for start in range(0, len(whole), size)]
        if rest and self.mode == "allow-smaller":
            groups.append(rest)
        elif rest and self.mode == "allow-bigger":
            groups[:1] = [[*(groups[0] if groups else []), *rest]]
        return groups


def _shared_out(values: Sequence[Indices], clients: int, least: int, what: str) -> list[Indices]:
    """One value to each client, and what is left to those that hold least."""
    parts = _joined(values, least)
    if clients > len(parts):
        raise InputError(
            "clients",
            clients,
            f"at most {len(parts)}, the {what} with {least} samples or more",
            f"Use clients={len(parts)}, or another partition.",
        )
    held: list[list[Indices]] = [[part] for part in parts[:clients]]
    for part in parts[clients:]:
        min(held, key=lambda client: sum(map(len, client))).append(part)
    return [np.concatenate(client) for client in held]


def _joined(values: Sequence[Indices], least: int) -> list[Indices]:
    """The values, those with too few samples together with the next."""
    parts: list[Indices] = []
    open_part: Sequence[Indices] = ()
    for samples in values:
        open_part = (*open_part, samples)
        if sum(map(len, open_part)) >= least:
            parts.append(np.concatenate(open_part))
            open_part = ()
    if open_part and parts:
        parts[-1] = np.concatenate([parts[-1], *open_part])
    return parts
