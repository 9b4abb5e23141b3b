"""FedDyn: a dynamic regulariser that makes clients agree in the limit (Acar et al., arXiv 2111.04263).

This is Algorithm 1 of the paper. Client k minimises ``L_k(w) - <g_k, w> + alpha/2 ||w - w_t||^2`` from w_t,
where g_k is its linear term, at first zero. Then, with the cohort P and all m clients,

    g_k' = g_k - alpha (w_k - w_t)
    h' = h - alpha/m sum_P (w_k - w_t)
    w_{t+1} = mean_P(w_k) - h' / alpha

alpha is ``training.proximal_mu``, whose term every engine adds to the loss. As in the paper, every client of
the cohort counts once in the mean.

The paper leaves these points open (ours): the server's step is multiplied by ``server_lr``; under a selector,
h also contains changes that were not applied; a client whose training yields numbers that are not finite
keeps its old g_k; gradients are clipped after the linear term is added. For the paper's update, set
``training.clip_norm`` to null.
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
from fedtlu_fast.clients.trainer import ClientStart, ClientUpdate
from fedtlu_fast.errors import InputError
from fedtlu_fast.part_memory import tensor_like
from fedtlu_fast.parts import part

LINEAR, DRIFT = "linear", "drift"
"""The names under which each client keeps g_k and the server keeps h, [P] float32."""


@part
class FedDyn(ClientStep):
    """Clients keep a linear term from round to round: 4 P bytes for each client that has taken part."""

    changes: ClassVar[frozenset[str]] = frozenset({"correction"})
    sees_clients: ClassVar[bool] = False  # it needs sums only

    @override
    def check(self, facts: RunFacts) -> None:
        if not facts.proximal_mu:
            expected = "more than 0: it is FedDyn's alpha, such as 0.1"
            raise InputError("training.proximal_mu", facts.proximal_mu, expected)

    @override
    def before(self, client: ClientContext, start: ClientStart) -> ClientStart:
        if LINEAR not in client.memory:
            return start
        return start.corrected(-tensor_like(client.memory[LINEAR], start.params))

    @override
    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        update = replace(update, weight=1.0)
        start = client.start
        if start is None or not update.is_sound(start.buffers):
            return update
        moved = client.facts.proximal_mu * (update.params - start.params)
        own = client.memory.get(LINEAR)
        linear = -moved if own is None else tensor_like(own, moved) - moved
        return replace(update, memory={LINEAR: linear.cpu().numpy()})

    @override
    def server_half(self, server: ServerContext) -> ServerHalf:
        return _Drift(server)


class _Drift(ServerHalf):
    def __init__(self, server: ServerContext) -> None:
        self._server = server

    @override
    def complete(self, aggregated: RoundChange) -> RoundChange:
        if aggregated.empty:
            return aggregated
        memory, facts = self._server.memory, self._server.facts
        drift = memory.server.get(DRIFT, torch.zeros_like(aggregated.change)).clone()
        for client, new in aggregated.memory.items():
            # A linear term moves by -alpha (w_k - w_t), and h by the sum of these divided by m.
            moved = tensor_like(new[LINEAR], drift)
            own = memory.of(client).get(LINEAR)
            drift += (moved if own is None else moved - tensor_like(own, drift)) / facts.clients
        self.server = {DRIFT: drift}
        return replace(aggregated, change=aggregated.change - drift / facts.proximal_mu)
