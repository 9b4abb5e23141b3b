"""How client changes become one, and what step the server makes of it."""

from fedtlu_fast.aggregation.fedavg import WeightedMean
from fedtlu_fast.aggregation.rule import AggregationRule, make_buffers_rule, make_rule
from fedtlu_fast.aggregation.server_optimizer import (
    OptimizerState,
    ServerOptimizer,
    make_server_optimizer,
)
from fedtlu_fast.aggregation.share import largest_weight
from fedtlu_fast.aggregation.stack import check_room, stack_bytes
from fedtlu_fast.aggregation.weighted_sum import Aggregate, aggregate

__all__ = [
    "Aggregate",
    "AggregationRule",
    "OptimizerState",
    "ServerOptimizer",
    "WeightedMean",
    "aggregate",
    "check_room",
    "largest_weight",
    "make_buffers_rule",
    "make_rule",
    "make_server_optimizer",
    "stack_bytes",
]
