"""How samples are dealt to clients; names and arguments follow Flower Datasets' partitioners.

A partitioner is made from settings and called with every sample's source; it returns one array of sample
indices per client. Every sample goes to exactly one client.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedtlu_fast.config import PartitionConfig
from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError


class Partitioner(Protocol):
    """Deals samples to clients."""

    @property
    def num_partitions(self) -> int:
        """Number of clients."""
        ...

    def partition(self, sources: Indices, generator: np.random.Generator) -> list[Indices]:
        """Sample indices of each client.

        Args:
            sources: [N], the number of the source (topic, file, label) that each sample is from.
            generator: source of chance.

        Raises:
            InputError: these samples cannot be dealt to so many clients.
        """
        ...


@dataclass(frozen=True)
class IidPartitioner:
    """Equal shares of the shuffled samples."""

    num_partitions: int

    def partition(self, sources: Indices, generator: np.random.Generator) -> list[Indices]:
        """See `Partitioner.partition`."""
        _check_enough(len(sources), self.num_partitions, 1)
        return list(np.array_split(generator.permutation(len(sources)), self.num_partitions))


@dataclass(frozen=True)
class DirichletPartitioner:
    """Each source is spread over the clients by proportions drawn from Dirichlet(alpha).

    Clients that already hold more than their equal share get nothing from further sources
    (`self_balancing`, as in Flower Datasets). Where that library gives up when a client ends up with fewer
    than `min_partition_size` samples, here the clients that hold most hand some of theirs over (ours).
    """

    num_partitions: int
    alpha: float
    min_partition_size: int

    def partition(self, sources: Indices, generator: np.random.Generator) -> list[Indices]:
        """See `Partitioner.partition`."""
        _check_enough(len(sources), self.num_partitions, self.min_partition_size)
        held: list[list[int]] = [[] for _ in range(self.num_partitions)]
        fair = len(sources) / self.num_partitions
        for source in generator.permutation(np.unique(sources)):
            samples = generator.permutation(np.flatnonzero(sources == source))
            shares = generator.dirichlet(np.full(self.num_partitions, self.alpha))
            shares *= np.array([len(part) < fair for part in held])
            total = shares.sum()
            # Every proportion can underflow to zero for a very small alpha.
            shares = shares / total if total > 0 else np.full(self.num_partitions, 1 / self.num_partitions)
            cuts = (np.cumsum(shares)[:-1] * len(samples)).astype(np.int64)
            for part, new in zip(held, np.split(samples, cuts), strict=True):
                part.extend(new.tolist())
        while len(poorest := min(held, key=len)) < self.min_partition_size:
            richest = max(held, key=len)
            poorest.append(richest.pop())
        return [np.array(part, dtype=np.int64) for part in held]


@dataclass(frozen=True)
class NaturalIdPartitioner:
    """Whole sources: one for each client, or several when there are fewer clients than sources.

    A source with fewer than `min_partition_size` samples is joined to the next one (the last to the one
    before it); with fewer clients, the next source always goes to the client that holds least.
    """

    num_partitions: int
    min_partition_size: int

    def partition(self, sources: Indices, generator: np.random.Generator) -> list[Indices]:
        """See `Partitioner.partition`; nothing is drawn."""
        parts = self._joined(sources)
        if self.num_partitions > len(parts):
            raise InputError(
                "clients",
                self.num_partitions,
                f"at most {len(parts)}, the sources with {self.min_partition_size} samples or more",
                f"Use clients={len(parts)}, or another partition.",
            )
        held: list[list[Indices]] = [[part] for part in parts[: self.num_partitions]]
        for part in parts[self.num_partitions :]:
            min(held, key=lambda client: sum(map(len, client))).append(part)
        return [np.concatenate(client) for client in held]

    def _joined(self, sources: Indices) -> list[Indices]:
        parts: list[Indices] = []
        open_part: Sequence[Indices] = ()
        for source in np.unique(sources):
            open_part = (*open_part, np.flatnonzero(sources == source))
            if sum(map(len, open_part)) >= self.min_partition_size:
                parts.append(np.concatenate(open_part))
                open_part = ()
        if open_part and parts:
            parts[-1] = np.concatenate([parts[-1], *open_part])
        return parts


def _check_enough(samples: int, clients: int, least: int) -> None:
    if samples < clients * least:
        expected = f"at most {samples // max(least, 1)}: there are {samples} samples and each gets {least}"
        raise InputError("clients", clients, expected)


def make_partitioner(config: PartitionConfig, clients: int) -> Partitioner:
    """The partitioner that the settings name."""
    if config.name == "iid":
        return IidPartitioner(clients)
    if config.name == "dirichlet":
        return DirichletPartitioner(clients, config.alpha, config.min_samples)
    return NaturalIdPartitioner(clients, config.min_samples)
