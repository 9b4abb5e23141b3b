"""Holds the values that a part of a run remembers from round to round.

`ServerState` holds these memories, and checkpoints save them. They are never changed in place: every function
here returns new mappings.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Value = float | int | NDArray[Any]
"""A value that a part remembers for one client: a number or an array."""
ClientMemory = Mapping[str, Value]
"""All values that one part remembers for one client, by name."""


@dataclass(frozen=True)
class PartMemory:
    """Holds the memory of one part.

    Attributes:
        server: the server's tensors by name, on the run's device.
        clients: name -> client -> value. The values of one name have the same shape and dtype for all
            clients; a client may lack a value.
    """

    server: Mapping[str, Tensor] = field(default_factory=dict)
    clients: Mapping[str, Mapping[int, Value]] = field(default_factory=dict)

    def of(self, client: int) -> dict[str, Value]:
        """Returns all values that the part remembers for one client, by name."""
        return {name: values[client] for name, values in self.clients.items() if client in values}

    def known(self) -> set[int]:
        """Returns the clients for which the part remembers a value."""
        return {client for values in self.clients.values() for client in values}

    def with_server(self, server: Mapping[str, Tensor]) -> PartMemory:
        """Returns this memory with other tensors of the server."""
        return replace(self, server=server)

    def with_clients(self, clients: Mapping[int, ClientMemory]) -> PartMemory:
        """Returns this memory with new values for some clients; other clients keep theirs."""
        merged = {name: dict(values) for name, values in self.clients.items()}
        for client, own in clients.items():
            for name, value in own.items():
                merged.setdefault(name, {})[client] = _plain(value)
        return replace(self, clients=merged)


def tensor_like(value: Value, like: Tensor) -> Tensor:
    """Returns a remembered value as a tensor, with dtype and device of `like`; not to be changed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def read_only(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the same values, in which arrays cannot be written: others may read the same memory."""
    return {
        name: _sealed(value) if isinstance(value, np.ndarray) else value for name, value in values.items()
    }


Memory = Mapping[str, PartMemory]
"""The memories of all parts of a run, by the part's name."""
NOTHING = PartMemory()


def recall(memory: Memory, part: str) -> PartMemory:
    """Returns the memory of a part; it is empty if the part remembers nothing."""
    return memory.get(part, NOTHING)


def remember(memory: Memory, part: str, held: PartMemory) -> Memory:
    """Returns the memories of all parts with that of one part replaced; an empty memory is removed."""
    rest = {name: own for name, own in memory.items() if name != part}
    return {**rest, part: held} if held.server or any(held.clients.values()) else rest


def _sealed(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


def _plain(value: Value) -> Value:
    """Converts an array without dimensions, as a checkpoint returns it, to a number."""
    return value.item() if isinstance(value, np.ndarray | np.generic) and not value.ndim else value
