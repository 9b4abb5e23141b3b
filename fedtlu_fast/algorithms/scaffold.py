"""SCAFFOLD: control variates that undo the drift of clients (Karimireddy et al., arXiv 1910.06378).

Algorithm 1 with option II. The server keeps c and every client c_i, all of them zero in the beginning. In
every local step a client adds ``c - c_i`` to its gradient. After K steps of learning rate lr from x to y_i,

    c_i' = c_i - c + (x - y_i) / (K lr),        c' = c + sum_i (c_i' - c_i) / N

over the clients of the cohort, N being all clients. As in the paper every client counts once in the mean.

What the paper leaves open (ours): under a selector all control variates are kept, also those of blocks that
were not applied. A client whose training gave no finite numbers keeps its old c_i. Gradients are clipped, if
at all, after the correction; for the paper's update set ``training.clip_norm`` to null.
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
"""Under which name the server keeps c and each client c_i, [P] float32."""


@part
class Scaffold(ClientStep):
    """Clients correct every local step by control variates; 4 P bytes for each that has taken part."""

    changes: ClassVar[frozenset[str]] = frozenset({"correction"})
    reads: ClassVar[tuple[str, ...]] = (CONTROL,)

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
    """A control variate as a tensor; zeros before the first."""
    return torch.zeros_like(like) if value is None else tensor_like(value, like)
