"""FedNova: clients with different numbers of steps count equally (Wang et al., arXiv 2007.07481).

A client's change is divided by a_i, the length of its training in steps of plain SGD, and the mean of these
is multiplied by the effective number of steps (Eq. 7 and Section 5 of the paper):

    x' = x + tau_eff sum_i p_i (y_i - x) / a_i,        tau_eff = sum_i p_i a_i,        p_i = n_i / n

For tau_i steps of SGD, a_i = tau_i; with momentum m,
``a_i = (tau_i - m (1 - m^tau_i) / (1 - m)) / (1 - m)``; with a proximal term mu,
``a_i = (1 - (1 - lr mu)^tau_i) / (lr mu)``. Momentum and a proximal term together are refused, because the
paper gives no a_i for them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from typing_extensions import override

from fedtlu_fast.client_steps.step import (
    ClientContext,
    ClientStep,
    RoundChange,
    RunFacts,
    ServerContext,
    ServerHalf,
)
from fedtlu_fast.clients.trainer import ClientUpdate
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part

LENGTH, WEIGHT = "length", "weight"
"""The names under which a client's a_i and its weight n_i reach the server."""


@part
class FedNova(ClientStep):
    """Each client divides its change by the length of its training before it sends it."""

    changes: ClassVar[frozenset[str]] = frozenset()
    sees_clients: ClassVar[bool] = False  # it needs sums only

    @override
    def check(self, facts: RunFacts) -> None:
        if not facts.lr:
            raise InputError("training.optimizer", "adamw", "sgd with FedNova, which counts its steps")
        if facts.momentum and facts.proximal_mu:
            expected = "0 with FedNova and momentum: the paper has no length for both"
            raise InputError("training.proximal_mu", facts.proximal_mu, expected)

    @override
    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        start = client.start
        if start is None or not update.is_sound(start.buffers):
            return update
        facts = client.facts
        length = length_of(update.steps, facts.lr, facts.momentum, facts.proximal_mu)
        params = torch.add(client.params, update.params - client.params, alpha=1 / length)
        return replace(update, params=params, memory={LENGTH: length, WEIGHT: float(update.counts)})

    @override
    def server_half(self, server: ServerContext) -> ServerHalf:
        return _Effective()


class _Effective(ServerHalf):
    @override
    def complete(self, aggregated: RoundChange) -> RoundChange:
        pairs = [(float(own[LENGTH]), float(own[WEIGHT])) for own in aggregated.memory.values()]
        total = sum(weight for _, weight in pairs)
        if not total:
            return aggregated
        effective = sum(length * weight for length, weight in pairs) / total
        return replace(aggregated, change=aggregated.change * effective)


def length_of(steps: int, lr: float, momentum: float, mu: float) -> float:
    """Returns a_i of so many steps: the sum of the weights with which gradients enter the change, over lr."""
    if momentum:
        return (steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum)
    if mu:
        return float((1 - (1 - lr * mu) ** steps) / (lr * mu))
    return float(steps)
