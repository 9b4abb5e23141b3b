"""What the clients of a round are told about blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Blocks = tuple[int, ...]


@dataclass(frozen=True)
class Orders:
    """Each client's blocks, by its number; indices, ascending.

    Attributes:
        trained: what it trains.
        sent: what it sends of that; None: everything it trains.
        budgets: of those that choose what they send when they have trained; `sent` is then what they send
            in any case. None: nobody does.
    """

    trained: Mapping[int, Blocks]
    sent: Mapping[int, Blocks] | None = None
    budgets: Mapping[int, float] | None = None

    def of(self, clients: Iterable[int]) -> Orders:
        """The orders of these clients alone."""
        some = tuple(clients)
        return Orders(
            {client: self.trained[client] for client in some},
            None if self.sent is None else {client: self.sent[client] for client in some},
            None if self.budgets is None else {client: self.budgets[client] for client in some},
        )

    def to_send(self, client: int) -> Blocks:
        """What is known before it trains of what it sends."""
        return (self.trained if self.sent is None else self.sent)[client]
