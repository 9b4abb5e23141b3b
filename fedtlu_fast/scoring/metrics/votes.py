"""Clients rank the blocks, and their ranks are averaged (ours)."""

from __future__ import annotations

import torch
from torch import Tensor

from fedtlu_fast.scoring.block_metrics import BlockValues, Change, asks
from fedtlu_fast.scoring.metrics.of_clients import of_clients
from fedtlu_fast.scoring.metrics.units import behind, moved_units, ranked_blocks
from fedtlu_fast.scoring.units import root_counts


@asks("client_stats")
def votes(change: Change) -> BlockValues:
    """Ranks by the weighted mean of the ranks that the clients' own changes give a block (ours).

    Each client ranks the blocks of a group by ``||d_k|| / sqrt(n)`` of its own change, as `l2_per_parameter`
    does with the aggregate. Its ranks are scaled to [0, 1], 1 for its largest; equal blocks share their mean
    rank. A block's value is ``sum_k w_k rank_k``.

    What a client says of a block lies in [0, 1], whatever it sends, and does not change what others say. So
    clients of the share q of the weights together move the value of a block by at most q. Weights are those
    of the aggregate, which ``aggregation.max_share`` can cap.

    A client ranks the blocks that it sent; the only one of a group has the rank 1/2, and clients that did
    not send a block have no share in its value. A block is not ranked if it is in no group, nobody sent it,
    its aggregated change is zero, or it holds NaN or Inf. Layers have no values.
    """
    clients, moved = of_clients(change, "votes"), moved_units(change)
    roots = root_counts(change.scored)
    sizes = torch.where(roots > 1, clients.norms / roots, 0.0)
    layers = len(change.scored.layers)
    shares = clients.shares[:, layers:]
    values, voted = sizes.new_zeros(shares.shape[1]), torch.zeros(shares.shape[1], dtype=torch.bool)
    for group in change.scored.groups:
        blocks = list(group.blocks)
        if change.pooling == "pooled":
            own = sizes[:, [layers + block for block in blocks]]
        else:
            owned = [list(change.scored.blocks[block].layers) for block in blocks]
            own = torch.stack([sizes[:, places].mean(dim=1) for places in owned], dim=1)
        values[blocks] = (shares[:, blocks] * _ranks(own, shares[:, blocks] > 0)).sum(dim=0)
        voted[blocks] = (shares[:, blocks] > 0).any(dim=0)
    return BlockValues(None, behind(values, voted & ranked_blocks(change, moved)))


def _ranks(sizes: Tensor, sent: Tensor) -> Tensor:
    """Returns each client's ranks of the blocks that it sent, [K, G] in [0, 1]; both arguments are [K, G]."""
    others = sent[:, None, :]
    below = ((sizes[:, None, :] < sizes[:, :, None]) & others).sum(dim=2)
    equal = ((sizes[:, None, :] == sizes[:, :, None]) & others).sum(dim=2) - 1  # without itself
    most = sent.sum(dim=1, keepdim=True) - 1
    ranks = (2 * below + equal).double() / (2 * most.clamp_min(1))
    return torch.where(sent & (most > 0), ranks, 0.5)
