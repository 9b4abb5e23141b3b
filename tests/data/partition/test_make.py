import numpy as np
import pytest
from support.partitions import deal

from fedtlu_fast import InputError
from fedtlu_fast.config import PARTITION_ARGUMENTS, PartitionConfig
from fedtlu_fast.data.partition import (
    DirichletPartitioner,
    ExponentialPartitioner,
    GroupedNaturalIdPartitioner,
    IidPartitioner,
    InnerDirichletPartitioner,
    LinearPartitioner,
    NaturalIdPartitioner,
    PathologicalPartitioner,
    ShardPartitioner,
    SquarePartitioner,
    make_partitioner,
)

MADE = {
    "iid": ({}, IidPartitioner(3)),
    "dirichlet": (
        {"alpha": 0.7, "min_samples": 5, "self_balancing": False},
        DirichletPartitioner(3, "topic", 0.7, 5, self_balancing=False),
    ),
    "inner_dirichlet": ({"alpha": 2.0}, InnerDirichletPartitioner([4, 3, 3], "topic", 2.0)),
    "pathological": (
        {"num_classes_per_partition": 3, "class_assignment_mode": "deterministic"},
        PathologicalPartitioner(3, "topic", 3, "deterministic", 4),
    ),
    "shard": (
        {"num_shards_per_partition": None, "shard_size": 7, "keep_incomplete_shard": True},
        ShardPartitioner(3, "topic", None, 7, keep_incomplete_shard=True),
    ),
    "natural": ({"min_samples": 6}, NaturalIdPartitioner(3, "topic", 6)),
    "grouped_natural": (
        {"group_size": 5, "group_mode": "strict"},
        GroupedNaturalIdPartitioner(3, "topic", 5, "strict", 4),
    ),
    "linear": ({}, LinearPartitioner(3, 4)),
    "square": ({}, SquarePartitioner(3, 4)),
    "exponential": ({"min_samples": 2}, ExponentialPartitioner(3, 2)),
}


@pytest.mark.parametrize("name", PARTITION_ARGUMENTS)
def test_settings_name_the_partitioner_and_its_arguments(name):
    arguments, expected = MADE[name]
    assert make_partitioner(PartitionConfig(name=name, **arguments), 3, 10, "topic") == expected


def test_sizes_have_to_be_of_as_many_clients():
    config = PartitionConfig(name="inner_dirichlet", partition_sizes=(3, 2))
    assert make_partitioner(config, 2, 10, "topic").partition_sizes == [3, 2]
    with pytest.raises(InputError, match=r"partition_sizes: got '2 sizes'; expected one for each of the 3"):
        make_partitioner(config, 3, 10, "topic")


@pytest.mark.parametrize("name", [name for name, uses in PARTITION_ARGUMENTS.items() if "by" in uses])
def test_an_unknown_column_is_refused_with_those_there_are(name):
    partitioner = make_partitioner(PartitionConfig(name=name), 3, 30, "genre")
    with pytest.raises(InputError, match=r"partition.by: got 'genre'; expected one of source"):
        deal(partitioner, np.repeat(np.arange(5), 6))
