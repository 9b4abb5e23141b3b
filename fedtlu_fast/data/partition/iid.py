"""No skew: clients have equal shares of the shuffled samples."""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from fedtlu_fast.data.partition.partitioner import Partitioner, ToDeal
from fedtlu_fast.data.population import Indices
from fedtlu_fast.parts import part


@part
class Iid(Partitioner):
    """Deals equal shares of the shuffled samples; every sample is given to a client."""

    @override
    def partition(self, to_deal: ToDeal, generator: np.random.Generator) -> list[Indices]:
        to_deal.check_enough(1)
        return list(np.array_split(generator.permutation(to_deal.samples), to_deal.clients))
