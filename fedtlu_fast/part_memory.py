"""Holds the values that a part of a run remembers from round to round.

`ServerState` holds these memories, and checkpoints save them. They are never changed in place: every function
here returns new mappings. Whatever a part gives to be remembered passes `client_values` or `server_tensors`
(`remembered`), so that a resumed run finds the same types, shapes and orders as a run that was not stopped.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.errors import InputError

Value = float | int | NDArray[Any]
"""A value that a part remembers for one client: a number or an array."""
ClientMemory = Mapping[str, Value]
"""All values that one part remembers for one client, by name."""


@dataclass(frozen=True)
class PartMemory:
    """Holds the memory of one part.

    Attributes:
        server: the server's tensors by name, on the run's device.
        clients: name -> client -> value, ascending. The values of one name are of one kind for all clients:
            int, float, or arrays of one shape and dtype. A client may lack a value.
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

    def with_clients(self, clients: Mapping[int, ClientMemory], field: str = "memory") -> PartMemory:
        """Returns this memory with new values for some clients; other clients keep theirs.

        If one client has a float under a name, the ints of all clients under that name become floats.

        Args:
            clients: the new values by client, as `client_values` returns them.
            field: the name of the memory in errors.

        Raises:
            InputError: a value has another shape or dtype than the values of other clients have.
        """
        news: dict[str, dict[int, Value]] = {}
        for client, own in clients.items():
            for name, value in own.items():
                news.setdefault(name, {})[client] = value
        merged = dict(self.clients)
        for name, fresh in news.items():
            merged[name] = _merged(f"{field}[{name!r}]", self.clients.get(name, {}), fresh)
        return replace(self, clients={name: merged[name] for name in sorted(merged)})


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
"""The memories of all parts of a run, by the part's name; a client step's part is `part_of_step`."""
NOTHING = PartMemory()


def part_of_step(name: str) -> str:
    """Returns the name of a client step's memory, which no other part of a run can have."""
    return f"step:{name}"


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


def _merged(field: str, known: Mapping[int, Value], fresh: Mapping[int, Value]) -> dict[int, Value]:
    """Returns all clients' values of one name, ascending by client, after a check of the fresh ones."""
    # The known values are of one kind, so that the first one stands for all of them.
    kinds: dict[str, int] = {}
    for client, value in (*islice(known.items(), 1), *fresh.items()):
        kinds.setdefault(_kind(value), client)
    merged = {**known, **fresh}
    if len(merged) > len(known):
        merged = {client: merged[client] for client in sorted(merged)}
    if len(kinds) < 2:
        return merged
    if kinds.keys() == {"int", "float"}:
        return {client: float(value) for client, value in merged.items()}
    (kind, first), (other, second) = list(kinds.items())[:2]
    raise InputError(
        field,
        f"{other} (client {second})",
        f"values of one shape and dtype for all clients; client {first} has {kind}",
    )


def _kind(value: Value) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} and shape {value.shape}"
    return "int" if isinstance(value, int) else "float"
