"""The rules that turn the clients' changes into one, and the server optimizers that turn it into a step."""

from fedtlu_fast.aggregation.buffers import BuffersMean
from fedtlu_fast.aggregation.centered import CenteredClipping
from fedtlu_fast.aggregation.clipping import NormClip
from fedtlu_fast.aggregation.fedavg import Mean, WeightedMean
from fedtlu_fast.aggregation.geometric import GeometricMedian
from fedtlu_fast.aggregation.krum import Krum, MultiKrum
from fedtlu_fast.aggregation.robust import Median, TrimmedMean
from fedtlu_fast.aggregation.room import check_room, stack_bytes
from fedtlu_fast.aggregation.rule import Aggregated, AggregationRule, FunctionRule, Start
from fedtlu_fast.aggregation.server_optimizer import Adam, Momentum, OptimizerState, Plain, ServerOptimizer
from fedtlu_fast.aggregation.share import largest_weight
from fedtlu_fast.aggregation.weighted_sum import Aggregate, aggregate

__all__ = [
    "Adam",
    "Aggregate",
    "Aggregated",
    "AggregationRule",
    "BuffersMean",
    "CenteredClipping",
    "FunctionRule",
    "GeometricMedian",
    "Krum",
    "Mean",
    "Median",
    "Momentum",
    "MultiKrum",
    "NormClip",
    "OptimizerState",
    "Plain",
    "ServerOptimizer",
    "Start",
    "TrimmedMean",
    "WeightedMean",
    "aggregate",
    "check_room",
    "largest_weight",
    "stack_bytes",
]
