"""How samples are dealt to clients; names and arguments are those of Flower Datasets."""

from fedtlu_fast.data.partition.dirichlet import DirichletPartitioner
from fedtlu_fast.data.partition.iid import IidPartitioner
from fedtlu_fast.data.partition.inner_dirichlet import InnerDirichletPartitioner
from fedtlu_fast.data.partition.make import make_partitioner
from fedtlu_fast.data.partition.natural_id import GroupedNaturalIdPartitioner, NaturalIdPartitioner
from fedtlu_fast.data.partition.partitioner import Partitioner
from fedtlu_fast.data.partition.pathological import PathologicalPartitioner
from fedtlu_fast.data.partition.shard import ShardPartitioner
from fedtlu_fast.data.partition.size import ExponentialPartitioner, LinearPartitioner, SquarePartitioner

__all__ = [
    "DirichletPartitioner",
    "ExponentialPartitioner",
    "GroupedNaturalIdPartitioner",
    "IidPartitioner",
    "InnerDirichletPartitioner",
    "LinearPartitioner",
    "NaturalIdPartitioner",
    "Partitioner",
    "PathologicalPartitioner",
    "ShardPartitioner",
    "SquarePartitioner",
    "make_partitioner",
]
