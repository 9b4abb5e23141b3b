"""How client changes become one."""

from fedtlu_fast.aggregation.fedavg import WeightedMean
from fedtlu_fast.aggregation.robust import check_room
from fedtlu_fast.aggregation.rule import AggregationRule, make_rule
from fedtlu_fast.aggregation.weighted_sum import Aggregate, aggregate

__all__ = ["Aggregate", "AggregationRule", "WeightedMean", "aggregate", "check_room", "make_rule"]
