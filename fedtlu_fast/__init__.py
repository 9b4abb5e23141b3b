"""fedtlu-fast: federated fine-tuning in which only the layers that matter are updated."""

from fedtlu_fast._version import __version__
from fedtlu_fast.errors import BackendUnavailableError, FedtluError, InputError, StorageError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.scoring import LayerScores, score_blocks, score_layers
from fedtlu_fast.stats import LayerStats, layer_stats

__all__ = [
    "BackendUnavailableError",
    "FedtluError",
    "InputError",
    "LayerScores",
    "LayerStats",
    "ParameterLayout",
    "StorageError",
    "__version__",
    "layer_stats",
    "score_blocks",
    "score_layers",
]
