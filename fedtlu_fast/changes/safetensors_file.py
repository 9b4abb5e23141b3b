"""Reads a safetensors file a piece at a time.

The file is read, not mapped into memory, so that the memory in use does not grow with the file.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from fedtlu_fast.changes.stored import Stored
from fedtlu_fast.errors import InputError

# Types of less than eight bits are missing, because PyTorch cannot convert them.
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
}


class _Bytes:
    """An open safetensors file, with the place of every tensor."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self._file = stack.enter_context(path.open("rb", buffering=0))
        self._lock = threading.Lock()
        header = int.from_bytes(self._file.read(8), "little")
        self._data = 8 + header
        entries = json.loads(self._file.read(header))
        self.places = {
            name: (entry["dtype"], self._data + entry["data_offsets"][0])
            for name, entry in entries.items()
            if name != "__metadata__"
        }

    def flat(self, name: str, start: int, stop: int) -> Tensor:
        named, place = self.places[name]
        dtype = _DTYPES.get(named)
        if dtype is None:
            raise TypeError(f"PyTorch does not convert {named}")
        raw = torch.empty((stop - start) * dtype.itemsize, dtype=torch.uint8)
        self._fill(raw.numpy().data, place + start * dtype.itemsize)
        return raw.view(dtype)

    def _fill(self, view: memoryview, place: int) -> None:
        while len(view):
            got = self._read(view, place)
            if not got:
                raise OSError(f"{self.path} became shorter while it was read")
            view, place = view[got:], place + got

    def _read(self, view: memoryview, place: int) -> int:
        if hasattr(os, "preadv"):  # several threads may read at the same time
            return os.preadv(self._file.fileno(), [view], place)
        with self._lock:
            self._file.seek(place)
            return self._file.readinto(view) or 0


def tensors_of(field: str, path: Path, stack: ExitStack) -> dict[str, Stored]:
    """Returns the tensors of a safetensors file, under all their names.

    Args:
        field: ``BEFORE``, ``AFTER`` or ``BASE``, for messages.
        path: the file.
        stack: the stack that keeps the file open and closes it.

    Raises:
        InputError: The file is missing or damaged.
    """
    stored: dict[str, Stored] = {}
    try:
        if not path.is_file():  # opening a pipe would wait forever
            raise ValueError("it does not exist" if not path.exists() else "it is not a regular file")
        # The library checks the whole header.
        with safe_open(str(path), framework="pt") as checked:
            shapes = {name: tuple(checked.get_slice(name).get_shape()) for name in checked.keys()}  # noqa: SIM118
            metadata = checked.metadata() or {}
        file = _Bytes(path, stack)
        for name, shape in shapes.items():
            dtype, place = file.places[name]
            stored[name] = Stored(field, file, name, shape, dtype, place=place)
        # Tensors that safetensors.torch.save_model left out because they share the memory of another one.
        for name, held in metadata.items():
            if name not in stored and held in stored and not stored[held].alias:
                own = stored[held]
                stored[name] = Stored(field, file, own.name, own.shape, own.dtype, True, own.place)
    except MemoryError:
        raise
    except Exception as error:  # the library raises many errors for bytes that are not a safetensors file
        raise InputError(field, str(path), f"a complete safetensors file; {error}") from error
    return stored
