"""Label skew with sizes that are settled beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedtlu_fast.data.partition.partitioner import Columns, by_value, column
from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError


@dataclass(frozen=True)
class InnerDirichletPartitioner:
    """Each client draws its own proportions of the values from Dirichlet(alpha), and samples by them.

    Sample by sample, a client that is not full is drawn uniformly, and then a value by that client's
    proportions; values that have run out count for nothing. After FedDyn (arXiv 2111.04263), as in Flower
    Datasets; `alpha` is one number here. So the last clients to be filled take what is left, whatever
    their proportions. Samples beyond the sum of the sizes are given to nobody.

    Attributes:
        partition_sizes: samples of each client.
        partition_by: column.
        alpha: concentration; small is far from IID.
    """

    partition_sizes: Sequence[int]
    partition_by: str
    alpha: float

    def partition(self, columns: Columns, generator: np.random.Generator) -> list[Indices]:
        """See `Partitioner.partition`."""
        codes, sizes = column(columns, self.partition_by), np.asarray(self.partition_sizes, dtype=np.int64)
        if sizes.sum() > len(codes):
            raise InputError(
                "partition.partition_sizes", int(sizes.sum()), f"a sum of at most {len(codes)}, the samples"
            )
        pools = [generator.permutation(samples).tolist() for samples in by_value(codes)]
        left = np.array([len(pool) for pool in pools])
        wanted = generator.dirichlet(np.full(len(pools), self.alpha), size=len(sizes))
        parts: list[list[int]] = [[] for _ in sizes]
        unfilled = np.flatnonzero(sizes).tolist()
        while unfilled:
            place = int(generator.integers(len(unfilled)))
            client = unfilled[place]
            value = _draw(wanted[client], left, generator)
            parts[client].append(pools[value].pop())
            left[value] -= 1
            if len(parts[client]) == sizes[client]:
                unfilled[place] = unfilled[-1]
                unfilled.pop()
        return [np.array(part, dtype=np.int64) for part in parts]


def _draw(wanted: np.ndarray, left: np.ndarray, generator: np.random.Generator) -> int:
    """A value that has not run out, by the client's proportions."""
    there = left > 0
    ends = np.cumsum(wanted * there)
    # All that the client wants may have run out, or have underflowed to zero.
    if not ends[-1] > 0:
        ends = np.cumsum(there, dtype=np.float64)
    # The smallest end above the draw: a value without samples has no interval of its own.
    return int(np.searchsorted(ends, generator.random() * ends[-1], side="right"))


def equal_sizes(samples: int, clients: int) -> list[int]:
    """Sizes that differ by one at most and give every sample to a client."""
    return [samples // clients + (client < samples % clients) for client in range(clients)]
