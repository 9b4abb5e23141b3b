"""fedtlu-fast: federated fine-tuning in which only the layers that matter are updated."""

import importlib
from typing import TYPE_CHECKING, Any

from fedtlu_fast._version import __version__

if TYPE_CHECKING:
    from fedtlu_fast.aggregation import Aggregate, aggregate
    from fedtlu_fast.api import simulate
    from fedtlu_fast.changes import ScoredChange, apply_, choose, score
    from fedtlu_fast.clients.local import Local
    from fedtlu_fast.config import RunConfig
    from fedtlu_fast.data.datasets import Datasets
    from fedtlu_fast.data.pad import Pad
    from fedtlu_fast.errors import BackendUnavailableError, FedtluError, InputError, StorageError
    from fedtlu_fast.federation import Federation
    from fedtlu_fast.layout import ParameterLayout
    from fedtlu_fast.runs.results import RunResult
    from fedtlu_fast.scoring import LayerScores, score_blocks, score_layers
    from fedtlu_fast.settings import load_config
    from fedtlu_fast.simulation.callbacks import Callback, EarlyStopping, SaveBest
    from fedtlu_fast.stats import LayerStats, layer_stats
    from fedtlu_fast.tasks.hugging_face import HuggingFaceTask
    from fedtlu_fast.tasks.supervised import Metric, SupervisedTask

__all__ = [
    "Aggregate",
    "BackendUnavailableError",
    "Callback",
    "Datasets",
    "EarlyStopping",
    "Federation",
    "FedtluError",
    "HuggingFaceTask",
    "InputError",
    "LayerScores",
    "LayerStats",
    "Local",
    "Metric",
    "Pad",
    "ParameterLayout",
    "RunConfig",
    "RunResult",
    "SaveBest",
    "ScoredChange",
    "StorageError",
    "SupervisedTask",
    "__version__",
    "aggregate",
    "apply_",
    "choose",
    "layer_stats",
    "load_config",
    "score",
    "score_blocks",
    "score_layers",
    "simulate",
]

_HOMES = {
    "Aggregate": "aggregation",
    "BackendUnavailableError": "errors",
    "Callback": "simulation.callbacks",
    "Datasets": "data.datasets",
    "Federation": "federation",
    "EarlyStopping": "simulation.callbacks",
    "FedtluError": "errors",
    "HuggingFaceTask": "tasks.hugging_face",
    "InputError": "errors",
    "LayerScores": "scoring",
    "LayerStats": "stats",
    "Local": "clients.local",
    "Metric": "tasks.supervised",
    "Pad": "data.pad",
    "ParameterLayout": "layout",
    "RunConfig": "config",
    "RunResult": "runs.results",
    "SaveBest": "simulation.callbacks",
    "StorageError": "errors",
    "SupervisedTask": "tasks.supervised",
    "ScoredChange": "changes",
    "aggregate": "aggregation",
    "apply_": "changes",
    "choose": "changes",
    "score": "changes",
    "layer_stats": "stats",
    "load_config": "settings",
    "score_blocks": "scoring",
    "score_layers": "scoring",
    "simulate": "api",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: the command line's help need not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
