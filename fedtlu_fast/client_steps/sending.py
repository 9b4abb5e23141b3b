"""The step by which clients train and send chosen blocks only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.client_steps.orders import Order
from fedtlu_fast.client_steps.step import ClientContext, ClientStep
from fedtlu_fast.clients.trainer import Blocks, ClientStart, ClientUpdate


class ChoosesAfter(Protocol):
    """Chooses the blocks that a client sends by the change that its training has made."""

    def after_training(self, client: ClientContext, update: ClientUpdate, order: Order) -> Blocks:
        """Returns the blocks that the client sends.

        Args:
            client: the client and the round.
            update: the result of the client's training; not changed.
            order: the client's order, with its budget.
        """
        ...


@dataclass(frozen=True)
class SendChosen(ClientStep):
    """A client trains the blocks that its order names, and sends those of them that are to be sent.

    The server receives no change of other blocks, even if earlier steps have changed them. A client without
    an order trains and sends everything.

    Attributes:
        rule: chooses the blocks that a client with a budget sends after its training; None: no client
            chooses.
    """

    rule: ChoosesAfter | None = None
    changes: ClassVar[frozenset[str]] = frozenset({"blocks"})

    @override
    def before(self, client: ClientContext, start: ClientStart) -> ClientStart:
        if client.order is None or start.first:
            return start
        return replace(start, blocks=client.order.trained)

    @override
    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        if client.order is None:
            return update
        order, sent = client.order, client.order.sent
        if order.budget is not None and self.rule is not None:
            sent = self.rule.after_training(client, update, order)
        layout = client.facts.layout
        unsent = layout.runs(set(range(len(layout.blocks))).difference(sent))
        # Blocks that were not trained are as they were: then nothing is cut off, and a copy [P] is saved.
        if all(_same_bits(update.params[run], client.params[run]) for run in unsent):
            return replace(update, sent=sent)
        params = update.params.clone()
        for run in unsent:
            params[run] = client.params[run]
        return replace(update, params=params, sent=sent)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Tells whether two float32 vectors are equal bit by bit; equal floats may be 0 and -0."""
    return torch.equal(one.view(torch.int32), other.view(torch.int32))
