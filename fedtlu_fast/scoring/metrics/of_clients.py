"""The clients' changes as metrics see them: their norms, and what each client weighs in each unit's mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.scoring.block_metrics import Change
from fedtlu_fast.scoring.units import unit_norms


@dataclass(frozen=True)
class OfClients:
    """Norms and shares of K clients; both are [K, L + B] float64 on the CPU (`scoring.units`).

    Attributes:
        norms: ``||d_k||`` of every unit.
        shares: w_k, the client's share of the weights of all clients that sent the unit, so that a column
            sums to 1; 0 for a client that did not send it. A column is 0 if nobody did.
    """

    norms: Tensor
    shares: Tensor

    @property
    def squared_shares(self) -> Tensor:
        """[L + B], S2 = sum_k w_k^2; 1 for one client, 1/K for K of the same weight."""
        return self.shares.square().sum(dim=0)

    @property
    def spare(self) -> Tensor:
        """[L + B], 1 - S2 without cancellation: 0 where the mean is that of one client, or of none."""
        return (self.shares * (1 - self.shares)).sum(dim=0)


def of_clients(change: Change, metric: str) -> OfClients:
    """Returns the clients' norms and shares.

    Args:
        change: the aggregated change, with `client_stats` and `client_weights`.
        metric: the name of the metric that needs them, for the error.

    Raises:
        InputError: the change has no facts about single clients.
    """
    if change.client_stats is None:
        raise InputError("metric", metric, "a change with the statistics of each client's change")
    norms, held = unit_norms(change.client_stats, change.scored), weights_of_units(change, metric)
    total = held.sum(dim=0)
    return OfClients(norms, torch.where(total > 0, held / total.clamp_min(1e-300), 0.0))


def weights_of_units(change: Change, metric: str) -> Tensor:
    """Returns what each client weighs in the mean of each unit, [K, L + B]; 0 for one that did not send it.

    Args:
        change: the aggregated change, with `client_weights`.
        metric: the name of the metric that needs them, for the error.

    Raises:
        InputError: the change has no facts about single clients.
    """
    weights = change.client_weights
    if weights is None:
        raise InputError("metric", metric, "a change with the weights of its clients")
    units = len(change.layout.layers) + len(change.layout.blocks)
    held = weights.to("cpu", torch.float64)[:, None].expand(len(weights), units)
    return held if change.client_sent is None else held * _of_units(change.client_sent, change.layout)


def _of_units(sent: Tensor, layout: ParameterLayout) -> Tensor:
    """[K, L + B] bool: whether a client sent a unit, from what it sent of the blocks, [K, B]."""
    layers = sent.new_zeros(len(sent), len(layout.layers))
    for index, block in enumerate(layout.blocks):
        layers[:, list(block.layers)] = sent[:, index, None]
    return torch.cat([layers, sent], dim=1)
