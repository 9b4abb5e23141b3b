"""Takes the partitions of Flower Datasets, or of any object with the same interface, as clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

from typing_extensions import override

from fedtlu_fast.errors import InputError, cause


@dataclass(frozen=True)
class Partitions(Sequence[Any]):
    """A list with a partition for each client; a partition is loaded when it is asked for.

    Attributes:
        source: has ``load_partition(number)``.
        number: the number of partitions.
    """

    source: Any
    number: int

    def __len__(self) -> int:
        return self.number

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> list[Any]: ...
    @override
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [self[each] for each in range(self.number)[place]]
        return self.source.load_partition(range(self.number)[place])


def as_clients(given: Any, field: str) -> Any:
    """Returns partitions as a list of clients; anything else is returned unchanged.

    Args:
        given: a partitioner (``num_partitions`` and ``load_partition``), a federated data set
            (``partitioners`` and ``load_partition``), or anything else.
        field: the argument that holds it, for messages.

    Raises:
        InputError: The partitioner has no data yet, or a federated data set partitions several splits.
    """
    if isinstance(given, Sequence) or not callable(getattr(given, "load_partition", None)):
        return given
    try:
        if not hasattr(type(given), "partitioners"):
            return Partitions(given, int(given.num_partitions))
        splits = given.partitioners
    except Exception as error:  # whatever the other library raises
        expected = f"partitions that can be loaded; {cause(error)}"
        fix = "A partitioner of Flower Datasets needs its data first: partitioner.dataset = dataset."
        raise InputError(field, type(given).__name__, expected, fix) from error
    if len(splits) != 1:
        expected = f"a federated data set with one partitioned split; this one has {', '.join(splits)}"
        fix = f"Name the split: {field}=data.partitioners[{next(iter(splits), 'train')!r}]."
        raise InputError(field, type(given).__name__, expected, fix)
    (partitioner,) = splits.values()
    return Partitions(given, int(partitioner.num_partitions))
