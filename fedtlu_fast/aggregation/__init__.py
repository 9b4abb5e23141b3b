"""How client changes become one."""

from fedtlu_fast.aggregation.fedavg import WeightedMean

__all__ = ["WeightedMean"]
