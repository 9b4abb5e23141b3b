"""``memory.safetensors`` of a checkpoint: what the parts of a run remember, as named tensors.

A tensor of the server is ``PART/server/NAME``. What a part remembers of its clients under one name is two
tensors: ``PART/clients/NAME/numbers`` [n] int64, ascending, and ``PART/clients/NAME/values`` [n, ...].
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.errors import InputError
from fedtlu_fast.part_memory import Memory, PartMemory, Value

SERVER, CLIENTS, NUMBERS, VALUES = "server", "clients", "numbers", "values"


def packed(memory: Memory) -> dict[str, Tensor]:
    """The file's tensors.

    Raises:
        InputError: what a part remembers of its clients under one name has not one shape.
    """
    found: dict[str, Tensor] = {}
    for part, held in memory.items():
        for name, tensor in held.server.items():
            # Copied: safetensors refuses tensors that share memory.
            found[f"{part}/{SERVER}/{name}"] = tensor.cpu().clone().contiguous()
        for name, values in held.clients.items():
            numbers = sorted(values)
            place = f"{part}/{CLIENTS}/{name}"
            found[f"{place}/{NUMBERS}"] = torch.tensor(numbers, dtype=torch.int64)
            found[f"{place}/{VALUES}"] = _column(place, [values[number] for number in numbers])
    return found


def unpacked(found: Mapping[str, Tensor]) -> Memory:
    """The memory in a file's tensors.

    Raises:
        KeyError: a tensor is missing.
        ValueError: a tensor has another name or length than it has to.
    """
    server: dict[str, dict[str, Tensor]] = {}
    clients: dict[str, dict[str, dict[int, Value]]] = {}
    for key, tensor in found.items():
        place, _, name = key.rpartition("/")
        if place.endswith(f"/{SERVER}"):
            server.setdefault(place.removesuffix(f"/{SERVER}"), {})[name] = tensor
        elif name == NUMBERS:
            part, _, what = place.rpartition(f"/{CLIENTS}/")
            rows = zip(tensor.tolist(), _rows(found[f"{place}/{VALUES}"]), strict=True)
            clients.setdefault(part, {})[what] = dict(rows)
        elif name != VALUES:
            raise ValueError(f"{key} is no name of a part's memory")
    return {
        part: PartMemory(server.get(part, {}), clients.get(part, {})) for part in sorted({*server, *clients})
    }


def _column(place: str, values: list[Value]) -> Tensor:
    if all(isinstance(value, int) for value in values):
        return torch.tensor(values, dtype=torch.int64)
    if not any(isinstance(value, np.ndarray) for value in values):
        return torch.tensor(values, dtype=torch.float64)
    arrays = [np.asarray(value) for value in values]
    shapes = {(array.shape, array.dtype) for array in arrays}
    if len(shapes) > 1:
        raise InputError(
            f"memory of {place}",
            " and ".join(sorted(f"{dtype} {shape}" for shape, dtype in shapes)[:2]),
            "values of one shape and dtype for all clients",
        )
    return torch.from_numpy(np.stack(arrays))


def _rows(values: Tensor) -> list[Value] | list[NDArray[np.float32]]:
    if values.ndim == 1:
        numbers: list[Value] = values.tolist()
        return numbers
    # Copied: a view would keep all clients' values in memory as long as one of them is as it was read.
    return [row.copy() for row in values.numpy()]
