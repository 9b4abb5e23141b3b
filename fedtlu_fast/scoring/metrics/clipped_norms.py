"""The size of the clients' changes, with long ones cut (ours)."""

from __future__ import annotations

import torch

from fedtlu_fast.scoring.block_metrics import BlockValues, Change, asks
from fedtlu_fast.scoring.metrics.of_clients import of_clients
from fedtlu_fast.scoring.metrics.units import finite_units, from_units
from fedtlu_fast.scoring.units import root_counts


@asks("client_stats")
def clipped_norms(change: Change) -> BlockValues:
    """Ranks by ``sum_k w_k min(||d_k||, median_k ||d_k||) / sqrt(n)``, the usual size of a change (ours).

    The mean over clients of a block's norm says how far clients moved the block, also where their directions
    differ. One client with a long change would decide it, so norms are cut at the median over the K clients
    that sent the block, of an even number the lower one. Clients weigh in the mean as in the aggregate, and
    equally in the median.

    Bound. Let f of the K clients be hostile, at most half, with the share q of the weights; h_(i) is the i-th
    smallest norm of the others, and c = ceil(K / 2) the place of the median. Of the K norms in order, the
    c-th is at most h_(c), since c of the others' are not above it, and at least h_(c - f), since fewer than c
    norms are below it (0 for c <= f). With u_k the others' shares among themselves, the value of a unit lies
    between

        (1 - q) sum_k u_k min(h_k, h_(c - f)) / sqrt(n)   and   ((1 - q) sum_k u_k min(h_k, h_(c)) + q h_(c))
                                                                / sqrt(n),

    however long or short the hostile changes are; changes of zero and very long ones reach these values. So
    the value never exceeds the largest norm of another client. A block can be put before another only where
    these intervals overlap: the bound is one of values, and where blocks move alike, as at the beginning of a
    training, one client of many decides. `votes` bounds ranks. Half the clients can make a value 0.

    NaN and Inf count as no change. A layer without value, or with NaN or Inf in its aggregated change, counts
    as 0; but not one whose aggregated change is zero, since hostile clients that know the others' changes can
    cancel them.
    """
    clients = of_clients(change, "clipped_norms")
    roots = root_counts(change.scored)
    if not len(clients.norms):
        return from_units(change, torch.zeros_like(roots), roots < 0)
    norms = torch.where(torch.isfinite(clients.norms), clients.norms, 0.0)
    median = torch.where(clients.shares > 0, norms, torch.nan).nanmedian(dim=0).values
    value = (clients.shares * torch.minimum(norms, median)).sum(dim=0) / roots
    return from_units(change, value, finite_units(change) & (value > 0))
