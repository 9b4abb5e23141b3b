"""Orders: the blocks that each client of a round trains and sends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedtlu_fast.clients.trainer import Blocks


@dataclass(frozen=True)
class Order:
    """The blocks that one client trains and sends, as ascending indices.

    Attributes:
        trained: the blocks that the client trains.
        sent: the blocks, out of `trained`, that the client sends. If the client chooses after its training,
            these are the blocks that it sends in any case.
        budget: the budget of a client that chooses after its training; None: the client does not choose.
        last: the blocks that the server applied in the round before, for a client that chooses; None:
            unknown.
    """

    trained: Blocks
    sent: Blocks
    budget: float | None = None
    last: Blocks | None = None


@dataclass(frozen=True)
class Orders:
    """The blocks that each client of a round trains and sends, as ascending indices, by the client's number.

    Attributes:
        trained: the blocks that a client trains.
        sent: the blocks, out of `trained`, that a client sends; None: all of them. If clients choose after
            their training, these are the blocks that they send in any case.
        budgets: the budgets of clients that choose after their training; None: no client chooses.
        last: see `Order`; the same for all clients.
        asked: the blocks that every client of the round is asked to send; None if clients' orders differ.
    """

    trained: Mapping[int, Blocks]
    sent: Mapping[int, Blocks] | None = None
    budgets: Mapping[int, float] | None = None
    last: Blocks | None = None
    asked: Blocks | None = None

    def of(self, clients: Iterable[int]) -> Orders:
        """Returns the orders of these clients only."""
        some = tuple(clients)
        return Orders(
            {client: self.trained[client] for client in some},
            None if self.sent is None else {client: self.sent[client] for client in some},
            None if self.budgets is None else {client: self.budgets[client] for client in some},
            self.last,
            self.asked,
        )

    def for_client(self, client: int) -> Order:
        """Returns one client's order."""
        trained = self.trained[client]
        sent = trained if self.sent is None else self.sent[client]
        budget = None if self.budgets is None else self.budgets[client]
        return Order(trained, sent, budget, self.last)
