"""Clients rank the blocks, and their ranks are averaged (ours)."""

from __future__ import annotations

import torch
from torch import Tensor

from fedtlu_fast.scoring.block_metrics import BlockValues, Change, asks
from fedtlu_fast.scoring.metrics.of_clients import of_clients
from fedtlu_fast.scoring.metrics.units import behind, finite_units, ranked_blocks
from fedtlu_fast.scoring.units import root_counts


@asks("client_stats")
def votes(change: Change) -> BlockValues:
    """Ranks by the weighted mean of the ranks that the clients' own changes give a block (ours).

    Each client ranks the blocks of a group by ``||d_k|| / sqrt(n)`` of its own change, as `l2_per_parameter`
    does with the aggregate. Its ranks are scaled to [0, 1], 1 for its largest; equal blocks share their mean
    rank. A block's value is ``sum_k w_k rank_k``.

    Bound. A client's rank of a block lies in [0, 1] whatever it sends, and no other client can change it. So
    if hostile clients have the share q of the weights, and h is the value that the other clients alone give
    the block,

        value = (1 - q) h + q a,   where the hostile clients' own mean rank a is in [0, 1],

    and the value lies between (1 - q) h and (1 - q) h + q. Hostile clients can put a block before another
    only if its h is lower by q / (1 - q) at most: a difference of values is (1 - q) (h_i - h_j) + q (a_i -
    a_j), and the last bracket is at most 1. Where the others agree on the order of the G blocks, neighbours
    differ by 1 / (G - 1), and a block moves by (G - 1) q / (1 - q) ranks at most: of 6 blocks, by none with a
    tenth of the weights, and by one with a fifth. Where the others disagree, h are close and ranks are cheap.
    The bound of values is exact, and reached by clients that move the block most, or least, of all.

    Weights are those of the aggregate, which ``aggregation.max_share`` can cap. Clients that did not send a
    block have no share in its value, so that q is the share among those that sent it; it is 1 if only hostile
    ones did.

    A client ranks the blocks that it sent; the only one of a group has the rank 1/2. NaN and Inf count as no
    change. A block is not ranked if it is in no group, none of its senders moved it, or its aggregated change
    holds NaN or Inf. It is ranked if that change is zero, since hostile clients that know the others' changes
    can cancel them. Layers have no values.
    """
    clients, roots = of_clients(change, "votes"), root_counts(change.scored)
    sizes = torch.where((roots > 1) & torch.isfinite(clients.norms), clients.norms / roots, 0.0)
    moved = finite_units(change) & ((sizes > 0) & (clients.shares > 0)).any(dim=0)
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
