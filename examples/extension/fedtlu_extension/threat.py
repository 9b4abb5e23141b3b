"""A threat: clients that send their last change again instead of a new one."""

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from fedtlu_fast.client_steps import ClientContext, ClientStep
from fedtlu_fast.clients.trainer import ClientUpdate
from fedtlu_fast.parts import part


@part
class Stale(ClientStep):
    """A share of the clients sends what it sent in its round before.

    Attributes:
        share: of the clients.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    changes: ClassVar[frozenset[str]] = frozenset()

    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        """The old change in place of the new one, which is remembered."""
        change = (update.params - client.params).cpu().numpy()
        if "change" not in client.memory:
            return replace(update, memory={"change": change})
        old = torch.as_tensor(client.memory["change"], device=client.params.device)
        return replace(update, params=client.params + old, memory={"change": change})
