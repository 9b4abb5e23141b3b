"""The partitioners, which deal samples to clients; their parameters have the names of Flower Datasets."""

from fedtlu_fast.data.partition.dirichlet import Dirichlet
from fedtlu_fast.data.partition.iid import Iid
from fedtlu_fast.data.partition.inner_dirichlet import InnerDirichlet
from fedtlu_fast.data.partition.natural import GroupedNatural, Natural
from fedtlu_fast.data.partition.partitioner import Partitioner, ToDeal
from fedtlu_fast.data.partition.pathological import Pathological
from fedtlu_fast.data.partition.shard import Shard
from fedtlu_fast.data.partition.size import Exponential, Linear, Square

__all__ = [
    "Dirichlet",
    "Exponential",
    "GroupedNatural",
    "Iid",
    "InnerDirichlet",
    "Linear",
    "Natural",
    "Partitioner",
    "Pathological",
    "Shard",
    "Square",
    "ToDeal",
]
