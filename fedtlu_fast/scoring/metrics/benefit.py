"""By how much a block's change lowers the loss on the server's own sample, measured (ours)."""

from __future__ import annotations

import torch

from fedtlu_fast.errors import InputError
from fedtlu_fast.scoring.block_metrics import BlockValues, Change, asks
from fedtlu_fast.scoring.metrics.units import behind


@asks("held_out")
def benefit(change: Change) -> BlockValues:
    """Ranks by the decrease of the held-out loss if the round applied the block alone (ours).

    Blocks that every round applies are applied in both losses. This is an upper bound on what a score can
    know about one block in one round, not a method: it takes a forward pass over the samples for each block.
    A mean over rounds by ``selector=smoothed`` with ``mean_of=values`` is less noisy than the choice of
    ``selector=oracle``, which looks at one round.

    A block whose loss is no number, and a block in no group of like blocks, is not ranked. Layers have no
    values.

    Raises:
        InputError: the server has no held-out samples.
    """
    sample = change.held_out
    if sample is None:
        raise InputError("metric", "benefit", "a server that has held-out samples (evaluation.held_out)")
    values = torch.full((len(change.layout.blocks),), torch.nan, dtype=torch.float64)
    before = sample.loss(())
    for group in change.layout.groups:
        for block in group.blocks:
            values[block] = before - sample.loss((block,))
    return BlockValues(None, behind(values, torch.isfinite(values)))
