"""From the statistics of layers to the scores of blocks: Eq. 1, other block metrics, gradient metrics."""

from fedtlu_fast.scoring.scores import LayerScores, Pooling, score_blocks, score_layers
from fedtlu_fast.scoring.statistics import LayerStats, layer_stats

__all__ = ["LayerScores", "LayerStats", "Pooling", "layer_stats", "score_blocks", "score_layers"]
