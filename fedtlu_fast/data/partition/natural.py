"""Natural clients: each client is the origin of its samples, such as a document or a speaker, or a group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from typing_extensions import override

from fedtlu_fast.data.partition.partitioner import Partitioner, ToDeal, by_value
from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part

GroupMode = Literal["allow-smaller", "allow-bigger", "drop-reminder", "strict"]


@part
class Natural(Partitioner):
    """Each client gets one whole value, or several if there are fewer clients than values.

    Every sample is given to a client. Ours, where it departs from Flower Datasets: the number of clients is
    given. A value with fewer samples than a client needs is joined to the next value (the last one to the
    value before it). The first values go to one client each, and every further value goes to the client that
    holds least. There is no randomness.

    Attributes:
        by: the attribute by which samples are dealt, such as label or document; null: the data's first.
    """

    by: str | None = None

    @override
    def partition(self, to_deal: ToDeal, generator: np.random.Generator) -> list[Indices]:
        values = by_value(to_deal.column(self.by))
        return _shared_out(values, to_deal, to_deal.name(self.by))


@part
class GroupedNatural(Partitioner):
    """Each client gets a group of `group_size` consecutive values, such as an organisation of several people.

    Ours, where it departs from Flower Datasets: the number of clients is given, and groups are joined and
    dealt as `Natural` does with values. There is no randomness.

    Attributes:
        group_size: number of values in a group.
        by: the attribute by which samples are dealt, such as label or document; null: the data's first.
        group_mode: treatment of the last values, if they do not fill a group. ``allow-smaller``: they are the
            last group. ``allow-bigger``: they join the first group. ``drop-reminder``: they are not dealt.
            ``strict``: they are an error.
    """

    group_size: Annotated[int, Field(ge=1)] = 2
    by: str | None = None
    group_mode: GroupMode = "allow-smaller"

    @override
    def partition(self, to_deal: ToDeal, generator: np.random.Generator) -> list[Indices]:
        by, values = to_deal.name(self.by), by_value(to_deal.column(self.by))
        groups = [np.concatenate(group) for group in self._groups(values, by)]
        return _shared_out(groups, to_deal, f"groups of {self.group_size} values of {by}")

    def _groups(self, values: Sequence[Indices], by: str) -> list[list[Indices]]:
        size, left = self.group_size, len(values) % self.group_size
        if left and self.group_mode == "strict":
            expected = f"a divisor of {len(values)}, the values of {by}, with group_mode=strict"
            raise InputError("group_size", size, expected)
        whole, rest = list(values[: len(values) - left]), list(values[len(values) - left :])
        groups = [whole[start : start + size] for start in range(0, len(whole), size)]
        if rest and self.group_mode == "allow-smaller":
            groups.append(rest)
        elif rest and self.group_mode == "allow-bigger":
            groups[:1] = [[*(groups[0] if groups else []), *rest]]
        return groups


def _shared_out(values: Sequence[Indices], to_deal: ToDeal, what: str) -> list[Indices]:
    """Gives one value to each client, and each further value to the client that holds least."""
    clients, least = to_deal.clients, to_deal.least
    parts = _joined(values, least)
    if clients > len(parts):
        raise InputError(
            "clients",
            clients,
            f"at most {len(parts)}, the {what} with {least} samples or more",
            f"Use clients={len(parts)}, or another partition.",
        )
    held: list[list[Indices]] = [[own] for own in parts[:clients]]
    for own in parts[clients:]:
        min(held, key=lambda client: sum(map(len, client))).append(own)
    return [np.concatenate(client) for client in held]


def _joined(values: Sequence[Indices], least: int) -> list[Indices]:
    """Returns the values' samples; a value with too few samples is joined to the next one."""
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
