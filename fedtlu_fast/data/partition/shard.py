"""Label skew: the samples are sorted by value and cut into shards, and every client gets some shards."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field
from typing_extensions import override

from fedtlu_fast.data.partition.partitioner import Partitioner, ToDeal
from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part

Count = Annotated[int, Field(ge=1)]


@part
class Shard(Partitioner):
    """Clients get whole shards at random; a shard is a run of samples in the order of their values.

    Source: McMahan et al. (arXiv 1602.05629), as in Flower Datasets. If both numbers are given, every client
        gets
    so many shards of that size. With `num_shards_per_partition` alone, shards are as large as the samples
    allow. With `shard_size` alone, the clients' numbers of shards differ by one at most. Samples outside the
    shards, and shards that no client gets, are not dealt.

    Attributes:
        num_shards_per_partition: number of shards of each client; null: it follows from `shard_size`.
        by: the attribute by which samples are sorted, such as label or document; null: the data's first.
        shard_size: number of samples in a shard; null: as large as the samples allow.
        keep_incomplete_shard: whether the samples left at the end are a smaller shard; with `shard_size`
            alone.
    """

    num_shards_per_partition: Count | None = 2
    by: str | None = None
    shard_size: Count | None = None
    keep_incomplete_shard: bool = False

    @override
    def partition(self, to_deal: ToDeal, generator: np.random.Generator) -> list[Indices]:
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
