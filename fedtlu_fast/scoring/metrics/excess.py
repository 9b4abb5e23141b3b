"""The score of the paper, Eq. 1 of FedTLU (arXiv 2412.17692)."""

from __future__ import annotations

from fedtlu_fast.scoring.block_metrics import BlockValues, Change
from fedtlu_fast.scoring.scores import score_blocks


def excess(change: Change) -> BlockValues:
    """Ranks by Eq. 1 of FedTLU: (mean/std)^2 (`scores`)."""
    blocks = score_blocks(change.scores, change.scored, change.stats, change.pooling)
    return BlockValues(change.scores.margin, blocks)
