"""The mean change relative to its disagreement between clients (ours)."""

from __future__ import annotations

import torch

from fedtlu_fast.scoring.block_metrics import BlockValues, Change, asks
from fedtlu_fast.scoring.metrics.of_clients import of_clients
from fedtlu_fast.scoring.metrics.units import from_units, moved_units
from fedtlu_fast.scoring.units import unit_norms


@asks("client_stats")
def signal_to_noise(change: Change) -> BlockValues:
    """Ranks by ``||m||^2 / (S2 sigma^2)``, the energy of the mean change over that of its noise (ours).

        sigma^2 = (sum_k w_k ||d_k||^2 - ||m||^2) / (1 - S2),   m = sum_k w_k d_k,   S2 = sum_k w_k^2

    sigma^2 estimates by how much a client's change differs from what all clients have in common, and
    S2 sigma^2 how much of that is left in the mean. Eq. 1 divides by a deviation too, but by that between the
    elements of a layer; this one is between clients. About 1 is noise alone. It does not change when all
    changes are multiplied by a number.

    Layers without a ratio count as 0: those that one client alone sent, and those without disagreement
    (equal changes, up to rounding). ||m|| is that of the aggregated change; a rule other than the mean that
    keeps one of the longer changes (krum) may leave sigma^2 at 0 or below, and so the block without a ratio.
    """
    clients = of_clients(change, "signal_to_noise")
    energy = unit_norms(change.stats, change.scored).square()
    apart = (clients.shares * clients.norms.square()).sum(dim=0) - energy
    ratio = energy * clients.spare / (clients.squared_shares * apart)
    regular = moved_units(change) & (clients.spare > 0) & (apart > 0) & torch.isfinite(ratio)
    return from_units(change, ratio, regular)
