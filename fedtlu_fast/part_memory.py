"""What a part of a run remembers from round to round; `ServerState` holds it, and checkpoints save it.

Nobody changes it in place: every function here returns new mappings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Value = float | int | NDArray[Any]
"""One thing that a part remembers of one client: a number or an array."""
ClientMemory = Mapping[str, Value]
"""What one part remembers of one client, by name."""


@dataclass(frozen=True)
class PartMemory:
    """What one part remembers.

    Attributes:
        server: tensors of the server by name, on the run's device.
        clients: by name, the value of each client that has one. The values of one name have the same shape
            and dtype for all clients.
    """

    server: Mapping[str, Tensor] = field(default_factory=dict)
    clients: Mapping[str, Mapping[int, Value]] = field(default_factory=dict)

    def of(self, client: int) -> dict[str, Value]:
        """Everything that the part remembers of one client."""
        return {name: values[client] for name, values in self.clients.items() if client in values}

    def known(self) -> set[int]:
        """Every client of which the part remembers something."""
        return {client for values in self.clients.values() for client in values}

    def with_server(self, server: Mapping[str, Tensor]) -> PartMemory:
        """This memory with other tensors of the server."""
        return replace(self, server=server)

    def with_clients(self, clients: Mapping[int, ClientMemory]) -> PartMemory:
        """This memory with new values of some clients; other clients keep theirs."""
        merged = {name: dict(values) for name, values in self.clients.items()}
        for client, own in clients.items():
            for name, value in own.items():
                merged.setdefault(name, {})[client] = _plain(value)
        return replace(self, clients=merged)


def tensor_like(value: Value, like: Tensor) -> Tensor:
    """What a part remembers, as a tensor of another one's dtype and device."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


Memory = Mapping[str, PartMemory]
"""What all parts of a run remember, by the part's name."""
NOTHING = PartMemory()


def recall(memory: Memory, part: str) -> PartMemory:
    """What a part remembers; an empty memory where it remembers nothing."""
    return memory.get(part, NOTHING)


def remember(memory: Memory, part: str, held: PartMemory) -> Memory:
    """The memory of all parts with that of one part replaced; an empty one leaves no trace."""
    rest = {name: own for name, own in memory.items() if name != part}
    return {**rest, part: held} if held.server or any(held.clients.values()) else rest


def _plain(value: Value) -> Value:
    """A number instead of an array without dimensions, as it comes back from a checkpoint."""
    return value.item() if isinstance(value, np.ndarray | np.generic) and not value.ndim else value
