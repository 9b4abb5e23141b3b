"""The size of the clients' changes, with long ones cut (ours)."""

from __future__ import annotations

import torch

from fedtlu_fast.scoring.block_metrics import BlockValues, Change, asks
from fedtlu_fast.scoring.metrics.of_clients import of_clients
from fedtlu_fast.scoring.metrics.units import from_units, moved_units
from fedtlu_fast.scoring.units import root_counts


@asks("client_stats")
def clipped_norms(change: Change) -> BlockValues:
    """Ranks by ``sum_k w_k min(||d_k||, median_k ||d_k||) / sqrt(n)``, the usual size of a change (ours).

    The mean over clients of a block's norm says how far clients moved the block, also where their directions
    differ. One client with a long change would decide it, so norms are cut at the median over the clients
    that sent the block, of an even number the lower one. If at most half of the clients are hostile, the
    median lies between 0 and the largest norm of an honest client, and so does the value before the division
    by sqrt(n), however long the hostile changes are. Short ones lower both the median and the mean.

    Clients weigh in the mean as in the aggregate, and equally in the median.
    """
    clients = of_clients(change, "clipped_norms")
    roots = root_counts(change.scored)
    if not len(clients.norms):
        return from_units(change, torch.zeros_like(roots), roots < 0)
    sent = torch.where(clients.shares > 0, clients.norms, torch.nan)
    median = sent.nanmedian(dim=0).values
    value = (clients.shares * torch.minimum(clients.norms, median)).sum(dim=0) / roots
    return from_units(change, value, moved_units(change) & (value > 0) & torch.isfinite(value))
