"""Label skew in which the clients' sizes are given."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field
from typing_extensions import override

from fedtlu_fast.data.partition.partitioner import Alpha, Partitioner, ToDeal, by_value
from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part


@part
class InnerDirichlet(Partitioner):
    """Each client has its own proportions of the values, drawn from Dirichlet(alpha), at a given size.

    For every sample, a client that is not full is drawn uniformly, and then a value by that client's
    proportions among the values that still have samples. The clients that are filled last therefore take the
    values that are left, whatever their proportions. Samples beyond the sum of the sizes are not dealt.
    Source: FedDyn (arXiv 2111.04263), as in Flower Datasets; here `alpha` is one number.

    Attributes:
        alpha: concentration, above 0; a small one is far from IID, a large one is close to it.
        by: the attribute by which samples are dealt, such as label or document; null: the data's first.
        partition_sizes: number of samples of each client; null: equal sizes.
    """

    alpha: Alpha = 0.1
    by: str | None = None
    partition_sizes: tuple[Annotated[int, Field(ge=2)], ...] | None = None

    @override
    def partition(self, to_deal: ToDeal, generator: np.random.Generator) -> list[Indices]:
        codes, sizes = to_deal.column(self.by), self._sizes(to_deal)
        if sizes.sum() > len(codes):
            expected = f"a sum of at most {len(codes)}, the samples"
            raise InputError("partition_sizes", int(sizes.sum()), expected)
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
        return [np.array(own, dtype=np.int64) for own in parts]

    def _sizes(self, to_deal: ToDeal) -> Indices:
        sizes, clients = self.partition_sizes, to_deal.clients
        if sizes is None:
            return np.array(equal_sizes(to_deal.samples, clients), dtype=np.int64)
        if len(sizes) != clients:
            raise InputError(
                "partition_sizes", f"{len(sizes)} sizes", f"one for each of the {clients} clients"
            )
        return np.array(sizes, dtype=np.int64)


def _draw(wanted: np.ndarray, left: np.ndarray, generator: np.random.Generator) -> int:
    """Draws a value that still has samples, by the client's proportions."""
    there = left > 0
    ends = np.cumsum(wanted * there)
    # All values with a proportion above zero may be empty, or the proportions may have underflowed to zero.
    if not ends[-1] > 0:
        ends = np.cumsum(there, dtype=np.float64)
    # The smallest end above the draw: a value without samples has no interval of its own.
    return int(np.searchsorted(ends, generator.random() * ends[-1], side="right"))


def equal_sizes(samples: int, clients: int) -> list[int]:
    """Returns sizes that differ by one at most and add up to all samples."""
    return [samples // clients + (client < samples % clients) for client in range(clients)]
