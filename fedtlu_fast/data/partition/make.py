"""From settings to the partitioner that they name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fedtlu_fast.config import PartitionConfig
from fedtlu_fast.data.partition.dirichlet import DirichletPartitioner
from fedtlu_fast.data.partition.iid import IidPartitioner
from fedtlu_fast.data.partition.inner_dirichlet import InnerDirichletPartitioner, equal_sizes
from fedtlu_fast.data.partition.natural_id import GroupedNaturalIdPartitioner, NaturalIdPartitioner
from fedtlu_fast.data.partition.partitioner import Partitioner
from fedtlu_fast.data.partition.pathological import PathologicalPartitioner
from fedtlu_fast.data.partition.shard import ShardPartitioner
from fedtlu_fast.data.partition.size import ExponentialPartitioner, LinearPartitioner, SquarePartitioner
from fedtlu_fast.errors import InputError


def make_partitioner(config: PartitionConfig, clients: int, samples: int, by: str) -> Partitioner:
    """The partitioner that the settings name.

    Args:
        config: name and arguments.
        clients: how many.
        samples: N.
        by: the column to go by.

    Raises:
        InputError: sizes are given for another number of clients.
    """
    least = config.min_samples
    makers: Mapping[str, Callable[[], Partitioner]] = {
        "iid": lambda: IidPartitioner(clients),
        "dirichlet": lambda: DirichletPartitioner(clients, by, config.alpha, least, config.self_balancing),
        "inner_dirichlet": lambda: InnerDirichletPartitioner(
            _sizes(config, clients, samples), by, config.alpha
        ),
        "pathological": lambda: PathologicalPartitioner(
            clients, by, config.num_classes_per_partition, config.class_assignment_mode, least
        ),
        "shard": lambda: ShardPartitioner(
            clients, by, config.num_shards_per_partition, config.shard_size, config.keep_incomplete_shard
        ),
        "natural": lambda: NaturalIdPartitioner(clients, by, least),
        "grouped_natural": lambda: GroupedNaturalIdPartitioner(
            clients, by, config.group_size, config.group_mode, least
        ),
        "linear": lambda: LinearPartitioner(clients, least),
        "square": lambda: SquarePartitioner(clients, least),
        "exponential": lambda: ExponentialPartitioner(clients, least),
    }
    return makers[config.name]()


def _sizes(config: PartitionConfig, clients: int, samples: int) -> list[int]:
    if config.partition_sizes is None:
        return equal_sizes(samples, clients)
    if len(config.partition_sizes) != clients:
        given = f"{len(config.partition_sizes)} sizes"
        raise InputError("partition.partition_sizes", given, f"one for each of the {clients} clients")
    return list(config.partition_sizes)
