"""Adds a threat: clients that send their last change again instead of a new one."""

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from fedtlu_fast.client_steps import ClientContext, ClientStep
from fedtlu_fast.clients.trainer import ClientUpdate
from fedtlu_fast.parts import part


@part
class Stale(ClientStep):
    """Makes a share of the clients send the change of the last round in which they trained.

    Attributes:
        share: share of the clients that do so, in (0, 1].
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    changes: ClassVar[frozenset[str]] = frozenset()

    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        """Replaces the new change by the old one, and remembers the new one."""
        change = (update.params - client.params).cpu().numpy()
        if "change" not in client.memory:
            return replace(update, memory={"change": change})
        old = torch.tensor(client.memory["change"], device=client.params.device)
        return replace(update, params=client.params + old, memory={"change": change})
