"""FedLUAR: blocks that no client had to send repeat their change of the round before (arXiv 2503.11146)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from typing_extensions import override

from fedtlu_fast.client_steps.step import ClientStep, RoundChange, ServerContext, ServerHalf
from fedtlu_fast.clients.trainer import Blocks
from fedtlu_fast.part_memory import part_of_step

NAME, CHANGE = "fedtlu_fast:Recycle", "change"
"""The step's name, which no class of the user's can have, and the name of the change of the round before."""
PART = part_of_step(NAME)
"""The name of the step's memory, which the clients' choice reads too."""


@dataclass(frozen=True)
class Recycle(ClientStep):
    """The server applies to the blocks that no client sent their change of the round before.

    It does so only if the round's mean has a client; without one, not even the blocks that had to be sent
    arrived.

    Attributes:
        blocks: indices of the blocks that may be recycled; frozen blocks are never among them.
    """

    blocks: Blocks

    @property
    @override
    def name(self) -> str:
        return NAME

    @override
    def server_half(self, server: ServerContext) -> ServerHalf:
        return _Recycler(self, server)


class _Recycler(ServerHalf):
    def __init__(self, step: Recycle, server: ServerContext) -> None:
        self._step, self._server = step, server

    @override
    def complete(self, aggregated: RoundChange) -> RoundChange:
        if aggregated.empty or not aggregated.ordered:
            return aggregated
        last, change = self._server.memory.server.get(CHANGE), aggregated.change
        recycled = {block for block in self._step.blocks if block in aggregated.unsent}
        if last is None or not recycled:
            self.server = {CHANGE: change}
            return aggregated
        change = change.clone()
        for run in self._server.facts.layout.runs(recycled):
            change[run] = last[run]
        self.server = {CHANGE: change}
        unsent = tuple(block for block in aggregated.unsent if block not in recycled)
        return replace(aggregated, change=change, unsent=unsent)
