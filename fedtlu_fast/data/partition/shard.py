"""Label skew: the samples are sorted by value and cut into shards, of which every client gets some."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from fedtlu_fast.data.partition.partitioner import Partitioner, ToDeal
from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part

Count = Annotated[int, Field(ge=1)]


@part
class Shard(Partitioner):
    """Clients get whole shards, drawn at random: runs of samples in the order of their values.

    After McMahan et al. (arXiv 1602.05629), as in Flower Datasets. With both numbers every client gets so
    many shards of that size; with `num_shards_per_partition` alone shards are as large as the samples
    allow; with `shard_size` alone clients get equal numbers of shards, or one more. Samples that no shard
    holds, and shards that no client gets, are given to nobody.

    Attributes:
        num_shards_per_partition: shards of each client; null: as shard_size gives.
        by: what of the samples it goes by, such as label or document; null: the data's first.
        shard_size: samples of one shard; null: as large as the samples allow.
        keep_incomplete_shard: with `shard_size` alone, whether the samples that are left at the end are a
            shard too.
    """

    num_shards_per_partition: Count | None = 2
    by: str | None = None
    shard_size: Count | None = None
    keep_incomplete_shard: bool = False

    def partition(self, to_deal: ToDeal, generator: np.random.Generator) -> list[Indices]:
        """See `Partitioner.partition`."""
        order = np.argsort(to_deal.column(self.by), kind="stable")
        each, clients = self.num_shards_per_partition, to_deal.clients
        size = self.shard_size
        if size is None:
            if each is None:
                raise InputError("shard_size", None, "a number, or num_shards_per_partition")
            size = len(order) // (clients * each)
        shards = [order[start : start + size] for start in range(0, len(order), size)] if size else []
        keep_last = each is None and self.keep_incomplete_shard
        if shards and len(shards[-1]) < size and not keep_last:
            shards.pop()
        needed = clients * (each or 1)
        if len(shards) < needed:
            raise InputError(
                "clients",
                clients,
                f"shards for all: {needed} are needed, and {len(order)} samples make {len(shards)}",
                "Use fewer clients, or fewer or smaller shards.",
            )
        drawn = generator.permutation(len(shards))
        if each is not None:
            drawn = drawn[:needed]
        return [
            np.concatenate([shards[shard] for shard in drawn[client::clients]]) for client in range(clients)
        ]
