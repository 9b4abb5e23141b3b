"""Clients that are alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedtlu_fast.data.partition.partitioner import Columns, check_enough, sample_count
from fedtlu_fast.data.population import Indices


@dataclass(frozen=True)
class IidPartitioner:
    """Equal shares of the shuffled samples; every sample is given to a client."""

    num_partitions: int

    def partition(self, columns: Columns, generator: np.random.Generator) -> list[Indices]:
        """See `Partitioner.partition`."""
        samples = sample_count(columns)
        check_enough(samples, self.num_partitions, 1)
        return list(np.array_split(generator.permutation(samples), self.num_partitions))
