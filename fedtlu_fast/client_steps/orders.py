"""Orders: the blocks that each client of a round trains and sends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedtlu_fast.clients.trainer import Blocks


@dataclass(frozen=True)
class Order:
    """One client's blocks; indices, ascending.

    Attributes:
        trained: the blocks that it trains.
        sent: the blocks of these that it sends.
        budget: what a client may send that chooses after its training; `sent` is then what it sends in any
            case. None: the client does not choose.
        last: the blocks that the server applied in the round before, for a client that chooses; None: not
            known.
    """

    trained: Blocks
    sent: Blocks
    budget: float | None = None
    last: Blocks | None = None


@dataclass(frozen=True)
class Orders:
    """Each client's blocks, by its number; indices, ascending.

    Attributes:
        trained: the blocks that a client trains.
        sent: the blocks of these that it sends; None: everything it trains.
        budgets: of clients that choose what they send when they have trained; `sent` is then what they send
            in any case. None: no client chooses.
        last: see `Order`; the same for all.
    """

    trained: Mapping[int, Blocks]
    sent: Mapping[int, Blocks] | None = None
    budgets: Mapping[int, float] | None = None
    last: Blocks | None = None

    def of(self, clients: Iterable[int]) -> Orders:
        """The orders of these clients alone."""
        some = tuple(clients)
        return Orders(
            {client: self.trained[client] for client in some},
            None if self.sent is None else {client: self.sent[client] for client in some},
            None if self.budgets is None else {client: self.budgets[client] for client in some},
            self.last,
        )

    def for_client(self, client: int) -> Order:
        """One client's order."""
        trained = self.trained[client]
        sent = trained if self.sent is None else self.sent[client]
        budget = None if self.budgets is None else self.budgets[client]
        return Order(trained, sent, budget, self.last)
