"""How much of the mean change is not the chance of which clients took part and what they held (ours)."""

from __future__ import annotations

import torch

from fedtlu_fast.scoring.block_metrics import BlockValues, Change, asks
from fedtlu_fast.scoring.metrics.of_clients import of_clients
from fedtlu_fast.scoring.metrics.units import from_units, moved_units
from fedtlu_fast.scoring.units import root_counts, unit_norms


@asks("client_stats")
def signal(change: Change) -> BlockValues:
    """Ranks by an unbiased estimate of the energy per parameter of the mean change (ours).

        (||m||^2 - sum_k w_k^2 ||d_k||^2) / ((1 - S2) n),   m = sum_k w_k d_k,   S2 = sum_k w_k^2

    The norm of a mean of few clients is mostly noise: a block whose clients disagree has a long mean too. If
    ``d_k = s + e_k`` with independent e_k of mean zero, then

        ||m||^2 - sum_k w_k^2 ||d_k||^2  =  sum_{j != k} w_j w_k <d_j, d_k>,
        E <d_j, d_k> = ||s||^2 for j != k,   and   sum_{j != k} w_j w_k = 1 - S2,

    whatever the variances of the e_k, which need not be equal. With equal weights this is
    ``||m||^2 - S2 sigma^2``, where ``sigma^2 = (sum_k w_k ||d_k||^2 - ||m||^2) / (1 - S2)``. The estimate may
    be negative. A hostile client moves it in proportion to the length of its change, not to the square.

    ||m|| is that of the aggregated change. With another rule than the mean, the estimate is that of the
    rule's change less the noise that a mean would have, and no longer unbiased: a rule that shortens changes
    (clipping) makes it smaller. Layers and blocks that one client alone sent have no estimate: such a layer
    counts as 0 and such a block is not ranked, so that in a round with one client no block is.
    """
    clients = of_clients(change, "signal")
    energy = unit_norms(change.stats, change.scored).square()
    own = (clients.shares * clients.norms).square().sum(dim=0)
    value = (energy - own) / (clients.spare * root_counts(change.scored).square())
    return from_units(change, value, moved_units(change) & (clients.spare > 0) & torch.isfinite(value))
