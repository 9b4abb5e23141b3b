"""SCAFFOLD: control variates that undo the drift of clients (Karimireddy et al., arXiv 1910.06378).

This is Algorithm 1 of the paper with option II. The server keeps c and every client keeps c_i, at first all
zero. In every local step a client adds ``c - c_i`` to its gradient. After K steps of learning rate lr from x
to y_i,

    c_i' = c_i - c + (x - y_i) / (K lr),        c' = c + sum_i (c_i' - c_i) / N

where the sum is over the cohort and N is the number of all clients. As in the paper, every client counts once
in the mean.

The paper leaves these points open (ours): under a selector all control variates are kept, also those of
blocks that were not applied; a client whose training yields numbers that are not finite keeps its old c_i;
gradients are clipped after the correction is added. For the paper's update, set ``training.clip_norm`` to
null.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor
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
from fedtlu_fast.part_memory import Value, tensor_like
from fedtlu_fast.parts import part

CONTROL = "control"
"""The name under which the server keeps c and each client keeps c_i, [P] float32."""


@part
class Scaffold(ClientStep):
    """Clients correct every local step by control variates: 4 P bytes for each client that has taken part."""

    changes: ClassVar[frozenset[str]] = frozenset({"correction"})
    reads: ClassVar[tuple[str, ...]] = (CONTROL,)
    sees_clients: ClassVar[bool] = False  # it needs sums only

    @override
    def check(self, facts: RunFacts) -> None:
        if not facts.lr:
            raise InputError(
                "training.optimizer", "another one", "sgd: SCAFFOLD divides by its learning rate"
            )
        if facts.momentum:
            raise InputError("training.momentum", facts.momentum, "0 with SCAFFOLD, which corrects plain SGD")

    @override
    def before(self, client: ClientContext, start: ClientStart) -> ClientStart:
        own = _known(client.memory.get(CONTROL), start.params)
        return start.corrected(_known(client.server.get(CONTROL), start.params) - own)

    @override
    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        update = replace(update, weight=1.0)
        start = client.start
        if start is None or not update.is_sound(start.buffers):
            return update
        own = _known(client.memory.get(CONTROL), update.params)
        common = _known(client.server.get(CONTROL), update.params)
        moved = (start.params - update.params) / (update.steps * client.facts.lr)
        return replace(update, memory={CONTROL: (own - common + moved).cpu().numpy()})

    @override
    def server_half(self, server: ServerContext) -> ServerHalf:
        return _Controls(server)


class _Controls(ServerHalf):
    def __init__(self, server: ServerContext) -> None:
        self._server = server

    @override
    def complete(self, aggregated: RoundChange) -> RoundChange:
        memory, params = self._server.memory, self._server.params
        moved = torch.zeros_like(params)
        for client, new in aggregated.memory.items():
            moved += _known(new[CONTROL], params) - _known(memory.of(client).get(CONTROL), params)
        held = memory.server.get(CONTROL)
        before = torch.zeros_like(params) if held is None else held
        self.server = {CONTROL: before + moved / self._server.facts.clients}
        return aggregated


def _known(value: Value | None, like: Tensor) -> Tensor:
    """Returns a control variate as a tensor like `like`; zeros before there is one."""
    return torch.zeros_like(like) if value is None else tensor_like(value, like)
