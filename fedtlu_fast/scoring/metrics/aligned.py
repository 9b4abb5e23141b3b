"""By how much a block's change lowers the loss on the server's own sample, to first order (ours)."""

from __future__ import annotations

import torch

from fedtlu_fast.errors import InputError
from fedtlu_fast.scoring.block_metrics import BlockValues, Change, asks
from fedtlu_fast.scoring.metrics.units import from_units
from fedtlu_fast.scoring.units import unit_norms


@asks("held_out")
def aligned(change: Change) -> BlockValues:
    """Ranks by ``-<dW, g>``, with the gradient g of the loss on held-out samples before the change (ours).

    To first order in the change, the loss falls by this much if the block alone is applied: the same question
    as the oracle's and the recorded benefit's, for one forward and backward pass instead of a pass for each
    block. Sums are in float64. The value may be negative. With the mean as pooling a block's value is the
    mean over its layers, and pooled their sum; for blocks with the same layers both give one order.

    A layer of one element counts like any other, since its product is as good as another's. A layer without
    change, or with NaN or Inf in change or gradient, counts as 0. `server_lr` scales all values alike, and a
    server optimizer is not looked at.

    Raises:
        InputError: the server has no held-out samples, or the change itself is not known.
    """
    if change.held_out is None:
        raise InputError("metric", "aligned", "a server that has held-out samples (evaluation.held_out)")
    if change.vector is None:
        raise InputError("metric", "aligned", "a change of which more than statistics is known")
    layout, gradient = change.scored, change.held_out.gradient()
    products = []
    for layer in layout.layers:
        place = slice(layer.offset, layer.offset + layer.numel)
        products.append(-(change.vector[place].double() @ gradient[place].double()))
    layers = torch.stack(products).cpu()
    blocks = [layers[list(block.layers)].sum() for block in layout.blocks]
    values, norms = torch.cat([layers, torch.stack(blocks)]), unit_norms(change.stats, layout)
    return from_units(change, values, (norms > 0) & torch.isfinite(norms) & torch.isfinite(values))
