"""``memory.safetensors`` of a checkpoint: what the parts of a run remember, as named tensors.

A tensor of the server is ``PART/server/NAME``. What a part remembers of its clients under one name is two
tensors: ``PART/clients/NAME/numbers`` [n] int64, ascending, and ``PART/clients/NAME/values`` [n, ...]. Within
names, ``%2F`` stands for a slash and ``%25`` for a percent sign, so that keys can be read in one way only.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.part_memory import Memory, PartMemory, Value

SERVER, CLIENTS, NUMBERS, VALUES = "server", "clients", "numbers", "values"


def packed(memory: Memory) -> dict[str, Tensor]:
    """The file's tensors; `remembered` and `PartMemory.with_clients` have made sure that they can be held."""
    found: dict[str, Tensor] = {}
    for part, held in memory.items():
        for name, tensor in held.server.items():
            # Copied: safetensors refuses tensors that share memory.
            found[_key(part, SERVER, name)] = tensor.cpu().clone().contiguous()
        for name, values in held.clients.items():
            numbers = sorted(values)
            found[_key(part, CLIENTS, name, NUMBERS)] = torch.tensor(numbers, dtype=torch.int64)
            found[_key(part, CLIENTS, name, VALUES)] = _column([values[number] for number in numbers])
    return found


def unpacked(found: Mapping[str, Tensor]) -> Memory:
    """The memory in a file's tensors.

    Raises:
        KeyError: a tensor is missing.
        ValueError: a tensor has another name or length than it has to.
    """
    server: dict[str, dict[str, Tensor]] = {}
    clients: dict[str, dict[str, dict[int, Value]]] = {}
    for part, *place in sorted(map(_names, found)):
        match place:
            case [kind, name] if kind == SERVER:
                server.setdefault(part, {})[name] = found[_key(part, *place)]
            case [kind, name, end] if kind == CLIENTS and end == NUMBERS:
                values = _rows(found[_key(part, CLIENTS, name, VALUES)])
                rows = zip(found[_key(part, *place)].tolist(), values, strict=True)
                clients.setdefault(part, {})[name] = dict(rows)
            case [kind, _, end] if kind == CLIENTS and end == VALUES:
                pass  # read with its numbers
            case _:
                raise ValueError(f"{_key(part, *place)} is no name of a part's memory")
    return {
        part: PartMemory(server.get(part, {}), clients.get(part, {})) for part in sorted({*server, *clients})
    }


def _key(*names: str) -> str:
    return "/".join(name.replace("%", "%25").replace("/", "%2F") for name in names)


def _names(key: str) -> list[str]:
    return [name.replace("%2F", "/").replace("%25", "%") for name in key.split("/")]


def _column(values: list[Value]) -> Tensor:
    if isinstance(values[0], int):
        return torch.tensor(values, dtype=torch.int64)
    if isinstance(values[0], float):
        return torch.tensor(values, dtype=torch.float64)
    return torch.from_numpy(np.stack([np.asarray(value) for value in values]))


def _rows(values: Tensor) -> list[Value] | list[NDArray[np.float32]]:
    if values.ndim == 1:
        numbers: list[Value] = values.tolist()
        return numbers
    # Copied: a view would keep all clients' values in memory as long as one of them is as it was read.
    return [row.copy() for row in values.numpy()]
