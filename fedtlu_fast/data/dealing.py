"""Deals samples to clients, and splits each client's samples into a training part and an own test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedtlu_fast.data.partition import Partitioner, ToDeal
from fedtlu_fast.data.population import Indices, Shares
from fedtlu_fast.errors import InputError, kind_of
from fedtlu_fast.own_draws import seeded_for
from fedtlu_fast.own_errors import named_errors
from fedtlu_fast.parts import parameters
from fedtlu_fast.randomness import generator
from fedtlu_fast.registry import spelled


@dataclass(frozen=True)
class Attribute:
    """A property of every sample, such as its label, its document or its genre.

    Attributes:
        codes: [N] int64, the code of each sample's value.
        names: names of the values, in the order of their codes.
    """

    codes: Indices
    names: tuple[str, ...]


def deal(
    attributes: Mapping[str, Attribute],
    clients: int,
    partitioner: Partitioner,
    min_samples: int,
    local_fraction: float,
    seed: int,
) -> tuple[Shares, Shares]:
    """Deals samples to clients and draws each client's own test.

    Args:
        attributes: the attributes of the samples; the partitioner deals by the one that its `by` names, or by
            the first.
        clients: number of clients.
        partitioner: deals the samples.
        min_samples: smallest number of samples that a client may get.
        local_fraction: share of each client's samples that is kept for its own test.
        seed: the run's seed.

    Returns:
        The rows to train on and the rows to test on. Every client has at least one row of each, and no row
        occurs twice.

    Raises:
        InputError: the partitioner cannot deal the samples to so many clients, deals a sample twice, or gives
            a client too few.
    """
    columns = {name: attribute.codes for name, attribute in attributes.items()}
    to_deal = ToDeal(columns, clients, min_samples)
    with seeded_for(partitioner, seed, "partition"):
        parts = _dealt(partitioner, to_deal, generator(seed, "partition"))
    _check_least(partitioner, min_samples, parts)
    split = [_train_and_own_test(part, local_fraction, seed, index) for index, part in enumerate(parts)]
    return Shares.of([rows for rows, _ in split]), Shares.of([rows for _, rows in split])


def _dealt(partitioner: Partitioner, to_deal: ToDeal, chance: np.random.Generator) -> list[Indices]:
    """Runs the partitioner and checks its result, because it may be the user's own."""
    try:
        with named_errors("partition.name", partitioner):
            found: Any = partitioner.partition(to_deal, chance)
    except InputError as error:
        whose = error.field in parameters(type(partitioner))
        raise (error.of(f"partition.{error.field}") if whose else error) from None
    parts = _rows_of_clients(type(partitioner).__name__, found)
    if len(parts) != to_deal.clients:
        expected = f"a partitioner that deals to {to_deal.clients} clients"
        raise InputError("partition.name", f"samples of {len(parts)} clients", expected)
    rows = np.concatenate(parts)
    unknown = rows[(rows < 0) | (rows >= to_deal.samples)]
    twice = rows[:0] if len(unknown) else np.flatnonzero(np.bincount(rows) > 1)
    for wrong, what in ((unknown, "unknown"), (twice, "dealt twice")):
        if len(wrong):
            expected = f"a partitioner that deals each of the {to_deal.samples} samples once at most"
            raise InputError("partition.name", f"sample {wrong[0]}, {what}", expected)
    return parts


def _rows_of_clients(name: str, found: Any) -> list[Indices]:
    """Returns the result of a partitioner of this name as arrays.

    Raises:
        InputError: it is no list of arrays of integers.
    """
    expected = f"{name}.partition() to return a list with an array of integers for each client"
    if not isinstance(found, np.ndarray | Sequence) or isinstance(found, str):
        raise InputError("partition.name", kind_of(found), expected)
    parts = [np.asarray(part) for part in found]
    parts = [part if part.size else part.astype(np.int64) for part in parts]  # an empty list has floats
    for part in parts:
        if part.ndim != 1 or part.dtype.kind not in "iu":
            raise InputError("partition.name", kind_of(part), expected)
    return parts


def _check_least(partitioner: Partitioner, least: int, parts: Sequence[Indices]) -> None:
    name = spelled("partitioner", type(partitioner))
    poorest = min(range(len(parts)), key=lambda client: len(parts[client]))
    if len(parts[poorest]) < least:
        raise InputError(
            "partition.min_samples",
            least,
            f"at most {len(parts[poorest])}, what client {poorest} gets by partition={name}",
            "Use fewer clients, a smaller min_samples (2 is the least) or another partition.",
        )


def _train_and_own_test(
    rows: Indices, local_fraction: float, seed: int, index: int
) -> tuple[Indices, Indices]:
    held = max(1, round(len(rows) * local_fraction))
    if len(rows) - held < 1:
        raise InputError(
            f"clients[{index}]",
            f"{len(rows)} samples",
            f"at least one to train on and one to test on, {local_fraction:g} of them",
            "Use fewer clients, a larger partition.min_samples or a smaller data.local_fraction.",
        )
    shuffled = generator(seed, "local split", client=index).permutation(rows)
    return np.sort(shuffled[held:]), np.sort(shuffled[:held])
