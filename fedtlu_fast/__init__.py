"""fedtlu-fast: federated fine-tuning in which only the layers that matter are updated."""

import importlib
from typing import TYPE_CHECKING, Any

from fedtlu_fast._version import __version__

if TYPE_CHECKING:
    from fedtlu_fast.aggregation import (
        Aggregate,
        Aggregated,
        AggregationRule,
        CenteredClipping,
        GeometricMedian,
        Krum,
        Mean,
        Median,
        MultiKrum,
        NormClip,
        ServerOptimizer,
        Start,
        TrimmedMean,
        aggregate,
    )
    from fedtlu_fast.algorithms import Ditto, FedDyn, FedNova, Scaffold
    from fedtlu_fast.api import simulate
    from fedtlu_fast.build.finished import load_result
    from fedtlu_fast.changes import ScoredChange, score
    from fedtlu_fast.changes.update import apply_, choose
    from fedtlu_fast.client_steps import ClientContext, ClientStep, RoundChange, ServerContext, ServerHalf
    from fedtlu_fast.clients.local import Local
    from fedtlu_fast.clients.trainer import ClientStart, ClientUpdate
    from fedtlu_fast.config import RunConfig
    from fedtlu_fast.config.settings import load_config
    from fedtlu_fast.data.datasets import Datasets
    from fedtlu_fast.data.pad import Pad
    from fedtlu_fast.data.partition import Partitioner
    from fedtlu_fast.errors import BackendUnavailableError, FedtluError, InputError, StorageError
    from fedtlu_fast.executors.executor import Executor, ExecutorPart, LaneWork
    from fedtlu_fast.executors.parts import Processes, Ray, Serial, Vectorized
    from fedtlu_fast.federation import Federation
    from fedtlu_fast.integrations.trackers import Track
    from fedtlu_fast.layout import ParameterLayout
    from fedtlu_fast.participation.samplers import Sampler
    from fedtlu_fast.parts import part
    from fedtlu_fast.report.again import write_report
    from fedtlu_fast.report.callback import WriteReport
    from fedtlu_fast.report.columns import Column
    from fedtlu_fast.runs.results import RunResult
    from fedtlu_fast.scoring import LayerScores, LayerStats, layer_stats, score_blocks, score_layers
    from fedtlu_fast.selection import Evidence, FedTLU, Ranking, Selector
    from fedtlu_fast.simulation.callbacks import Callback, EarlyStopping, SaveBest
    from fedtlu_fast.tasks.hugging_face import HuggingFaceTask
    from fedtlu_fast.tasks.own_metrics import Metric
    from fedtlu_fast.tasks.supervised import SupervisedTask

__all__ = [
    "Aggregate",
    "Aggregated",
    "AggregationRule",
    "BackendUnavailableError",
    "Callback",
    "CenteredClipping",
    "ClientContext",
    "ClientStart",
    "ClientStep",
    "ClientUpdate",
    "Column",
    "Datasets",
    "Ditto",
    "EarlyStopping",
    "Evidence",
    "Executor",
    "ExecutorPart",
    "FedDyn",
    "FedNova",
    "FedTLU",
    "Federation",
    "FedtluError",
    "GeometricMedian",
    "HuggingFaceTask",
    "InputError",
    "Krum",
    "LaneWork",
    "LayerScores",
    "LayerStats",
    "Local",
    "Mean",
    "Median",
    "Metric",
    "MultiKrum",
    "NormClip",
    "Pad",
    "ParameterLayout",
    "Partitioner",
    "Processes",
    "Ranking",
    "Ray",
    "RoundChange",
    "RunConfig",
    "RunResult",
    "Sampler",
    "SaveBest",
    "Scaffold",
    "ScoredChange",
    "Selector",
    "Serial",
    "ServerContext",
    "ServerHalf",
    "ServerOptimizer",
    "Start",
    "StorageError",
    "SupervisedTask",
    "Track",
    "TrimmedMean",
    "Vectorized",
    "WriteReport",
    "__version__",
    "aggregate",
    "apply_",
    "choose",
    "layer_stats",
    "load_config",
    "load_result",
    "part",
    "score",
    "score_blocks",
    "score_layers",
    "simulate",
    "write_report",
]

_HOMES = {
    "Aggregate": "aggregation",
    "Aggregated": "aggregation",
    "AggregationRule": "aggregation",
    "BackendUnavailableError": "errors",
    "Callback": "simulation.callbacks",
    "CenteredClipping": "aggregation",
    "ClientContext": "client_steps",
    "ClientStart": "clients.trainer",
    "ClientStep": "client_steps",
    "ClientUpdate": "clients.trainer",
    "Column": "report.columns",
    "Datasets": "data.datasets",
    "Ditto": "algorithms",
    "EarlyStopping": "simulation.callbacks",
    "Evidence": "selection",
    "Executor": "executors.executor",
    "ExecutorPart": "executors.executor",
    "FedDyn": "algorithms",
    "FedNova": "algorithms",
    "FedTLU": "selection",
    "Federation": "federation",
    "FedtluError": "errors",
    "GeometricMedian": "aggregation",
    "HuggingFaceTask": "tasks.hugging_face",
    "InputError": "errors",
    "Krum": "aggregation",
    "LaneWork": "executors.executor",
    "LayerScores": "scoring",
    "LayerStats": "scoring",
    "Local": "clients.local",
    "Mean": "aggregation",
    "Median": "aggregation",
    "Metric": "tasks.own_metrics",
    "MultiKrum": "aggregation",
    "NormClip": "aggregation",
    "Pad": "data.pad",
    "ParameterLayout": "layout",
    "Partitioner": "data.partition",
    "Processes": "executors.parts",
    "Ranking": "selection",
    "Ray": "executors.parts",
    "RoundChange": "client_steps",
    "RunConfig": "config",
    "RunResult": "runs.results",
    "Sampler": "participation.samplers",
    "SaveBest": "simulation.callbacks",
    "Scaffold": "algorithms",
    "ScoredChange": "changes",
    "Selector": "selection",
    "Serial": "executors.parts",
    "ServerContext": "client_steps",
    "ServerHalf": "client_steps",
    "ServerOptimizer": "aggregation",
    "Start": "aggregation",
    "StorageError": "errors",
    "SupervisedTask": "tasks.supervised",
    "Track": "integrations.trackers",
    "TrimmedMean": "aggregation",
    "Vectorized": "executors.parts",
    "WriteReport": "report.callback",
    "aggregate": "aggregation",
    "apply_": "changes.update",
    "choose": "changes.update",
    "layer_stats": "scoring",
    "load_config": "config.settings",
    "load_result": "build.finished",
    "part": "parts",
    "score": "changes",
    "score_blocks": "scoring",
    "score_layers": "scoring",
    "simulate": "api",
    "write_report": "report.again",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that the command line's help need not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
