"""How client changes become one."""

from fedtlu_fast.aggregation.fedavg import WeightedMean
from fedtlu_fast.aggregation.weighted_sum import Aggregate, aggregate

__all__ = ["Aggregate", "WeightedMean", "aggregate"]
