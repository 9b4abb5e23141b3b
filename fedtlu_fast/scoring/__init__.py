"""Scores layers and blocks from statistics of layers, by Eq. 1, other block metrics or gradient metrics."""

from fedtlu_fast.scoring.scores import LayerScores, Pooling, score_blocks, score_layers
from fedtlu_fast.scoring.statistics import LayerStats, layer_stats

__all__ = ["LayerScores", "LayerStats", "Pooling", "layer_stats", "score_blocks", "score_layers"]
