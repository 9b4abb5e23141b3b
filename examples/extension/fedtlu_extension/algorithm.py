"""Adds an algorithm with a state: FedCM, client-level momentum (Xu et al., arXiv 2106.10874).

The server keeps the direction D of the last round's change, ``-change / (lr K)`` for K local steps. In the
paper, clients step along ``alpha g + (1 - alpha) D``. Here they step along ``g + (1 - alpha) / alpha D``,
which is the same if the learning rate is alpha times the paper's.
"""

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from fedtlu_fast.client_steps import ClientContext, ClientStep, RoundChange, ServerContext, ServerHalf
from fedtlu_fast.clients.trainer import ClientStart, ClientUpdate
from fedtlu_fast.parts import part


@part
class FedCM(ClientStep):
    """Makes clients follow the direction of the round before.

    Attributes:
        alpha: share of the client's own gradient in its steps, in (0, 1].
    """

    alpha: Annotated[float, Field(gt=0, le=1)] = 0.1
    changes: ClassVar[frozenset[str]] = frozenset({"correction"})
    reads: ClassVar[tuple[str, ...]] = ("direction",)

    def before(self, client: ClientContext, start: ClientStart) -> ClientStart:
        """Adds the direction to the gradient of every local step."""
        if "direction" not in client.server:
            return start
        direction = torch.tensor(client.server["direction"], device=start.params.device)
        return start.corrected((1 - self.alpha) / self.alpha * direction)

    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        """Tells the server how many steps the client took."""
        return replace(update, memory={"steps": update.steps})

    def server_half(self, server: ServerContext) -> ServerHalf:
        """Returns the server's half, which remembers the direction."""
        return Direction(server.facts.lr)


class Direction(ServerHalf):
    """Computes the server's direction in one round."""

    def __init__(self, lr: float) -> None:
        self.lr = lr

    def complete(self, aggregated: RoundChange) -> RoundChange:
        """Remembers the direction and returns the change unchanged."""
        if not aggregated.empty:
            made = [float(own["steps"]) for own in aggregated.memory.values()]
            self.server = {"direction": -aggregated.change / (self.lr * sum(made) / len(made))}
        return aggregated
