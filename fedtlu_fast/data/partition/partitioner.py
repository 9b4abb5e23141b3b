"""What a partitioner is, and what several of them share."""

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
"""By name, what is known of each of the N samples: [N] codes, such as the number of its label or document."""

Alpha = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class ToDeal:
    """The samples that a partitioner deals, and the number of clients.

    Attributes:
        columns: what is known of the samples; at least one column.
        clients: how many there are.
        least: how many samples every client needs. A partitioner keeps to it where it can; a run refuses
            what it deals where a client has fewer.
    """

    columns: Columns
    clients: int
    least: int = 1

    @property
    def samples(self) -> int:
        """N."""
        return len(next(iter(self.columns.values())))

    def name(self, by: str | None) -> str:
        """The name of the column that a partitioner goes by: `by`, or the first where it is None.

        Raises:
            InputError: there is none of that name.
        """
        if by is not None and by not in self.columns:
            raise not_one_of("by", by, self.columns)
        return next(iter(self.columns)) if by is None else by

    def column(self, by: str | None) -> Indices:
        """[N], the column that a partitioner goes by; see `name`."""
        return self.columns[self.name(by)]

    def check_enough(self, least: int) -> None:
        """Makes sure that each client can get `least` samples.

        Raises:
            InputError: there are too few.
        """
        if self.samples < self.clients * least:
            most = self.samples // max(least, 1)
            expected = f"at most {most}: there are {self.samples} samples and each gets {least}"
            raise InputError("clients", self.clients, expected)


class Partitioner(ABC):
    """Deals samples to clients. To write your own, subclass it.

    The parameters of ours have the names of Flower Datasets' arguments. Two of those are none here: `seed`,
    since chance comes from the generator, and `shuffle`, since the order within a client means nothing
    (which samples it trains on, and in what order, is drawn later).

    Attributes:
        by: the column that it goes by; None: the first, or none.
    """

    by: str | None = None

    @abstractmethod
    def partition(self, to_deal: ToDeal, generator: np.random.Generator) -> list[Indices]:
        """The indices of each client's samples, int64; no sample is given to two clients.

        Args:
            to_deal: samples and clients.
            generator: the source of chance.

        Raises:
            InputError: these samples cannot be dealt to so many clients. Its field is the name of a
                parameter, or ``clients``.
        """


def by_value(codes: Indices) -> list[Indices]:
    """The samples of each value that occurs, ascending; the values in order."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order])) + 1
    return np.split(order, starts) if len(order) else []
