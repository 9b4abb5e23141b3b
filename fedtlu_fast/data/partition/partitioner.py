"""The interface of partitioners, and the code that several of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError, not_one_of

Columns = Mapping[str, Indices]
"""The attributes of the N samples by name: [N] int64 codes, such as the number of each sample's label."""

Alpha = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class ToDeal:
    """The samples that a partitioner deals, and the number of clients.

    Attributes:
        columns: the attributes of the samples; at least one.
        clients: number of clients.
        least: smallest number of samples that a client needs. A partitioner gives every client so many if it
            can; the run raises an error if it does not.
    """

    columns: Columns
    clients: int
    least: int = 1

    @property
    def samples(self) -> int:
        """N, the number of samples."""
        return len(next(iter(self.columns.values())))

    def name(self, by: str | None) -> str:
        """Returns the name of the column by which a partitioner deals: `by`, or the first if it is None.

        Raises:
            InputError: there is no column of that name.
        """
        if by is not None and by not in self.columns:
            raise not_one_of("by", by, self.columns)
        return next(iter(self.columns)) if by is None else by

    def column(self, by: str | None) -> Indices:
        """Returns [N] int64, the column by which a partitioner deals; see `name`."""
        return self.columns[self.name(by)]

    def check_enough(self, least: int) -> None:
        """Checks that there are `least` samples for each client.

        Raises:
            InputError: there are too few samples.
        """
        if self.samples < self.clients * least:
            most = self.samples // max(least, 1)
            expected = f"at most {most}: there are {self.samples} samples and each gets {least}"
            raise InputError("clients", self.clients, expected)


class Partitioner(ABC):
    """Deals samples to clients. To write your own, subclass it.

    The parameters of our partitioners have the names of Flower Datasets' arguments. Two of those arguments do
    not exist here: `seed`, because randomness comes from the generator, and `shuffle`, because the order of a
    client's samples has no meaning (training samples and their order are drawn later).

    Attributes:
        by: name of the column by which it deals; None: the first column, or no column.
    """

    by: str | None = None

    @abstractmethod
    def partition(self, to_deal: ToDeal, generator: np.random.Generator) -> list[Indices]:
        """Deals the samples; no sample may be given to two clients.

        Args:
            to_deal: the samples and the number of clients.
            generator: the source of randomness.

        Returns:
            For each client the int64 indices of its samples.

        Raises:
            InputError: the samples cannot be dealt to so many clients. The error's field is the name of a
                parameter, or ``clients``.
        """


def by_value(codes: Indices) -> list[Indices]:
    """Returns the indices of the samples of each value that occurs, ascending; values are in order."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order])) + 1
    return np.split(order, starts) if len(order) else []
