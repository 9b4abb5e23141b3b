"""Reads GGUF files through the package `gguf`; quantised numbers are dequantised a piece at a time."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.changes.stored import Stored
from fedtlu_fast.errors import InputError

# Types of GGUF that hold numbers as they are; all others are quantised, and dequantised into float32.
_PLAIN = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
_INTEGERS = ("I8", "I16", "I32", "I64")


class _Blocks:
    """An open GGUF file, with the type and place of every tensor."""

    def __init__(self, path: Path, entries: dict[str, Any], stack: ExitStack) -> None:
        self._file = stack.enter_context(path.open("rb", buffering=0))
        self._lock = threading.Lock()
        self._entries = entries

    def flat(self, name: str, start: int, stop: int) -> Tensor:
        from gguf import GGML_QUANT_SIZES
        from gguf.quants import dequantize

        entry = self._entries[name]
        numbers, size = GGML_QUANT_SIZES[entry.tensor_type]  # of one block of numbers with common scales
        first, last = start // numbers, -(-stop // numbers)
        with self._lock:
            self._file.seek(entry.data_offset + first * size)
            raw = self._file.read((last - first) * size)
        if len(raw) < (last - first) * size:
            raise OSError(f"{self._file.name} ends early")
        plain = _PLAIN.get(entry.tensor_type.name)
        if plain is not None:
            return torch.from_numpy(np.frombuffer(bytearray(raw), dtype=plain))
        values = torch.from_numpy(dequantize(np.frombuffer(raw, dtype=np.uint8), entry.tensor_type))
        return values[start - first * numbers : stop - first * numbers]


def tensors_of(field: str, path: Path, stack: ExitStack) -> dict[str, Stored]:
    """Returns the tensors of a GGUF file by the names that the file gives them.

    Args:
        field: ``BEFORE``, ``AFTER`` or ``BASE``, for messages.
        path: the file.
        stack: the stack that keeps the file open and closes it.

    Raises:
        InputError: The package is missing, or the file is damaged.
    """
    if find_spec("gguf") is None:
        raise InputError(field, str(path), "the package gguf; it cannot be found", "Use pip install gguf.")
    from gguf import GGUFReader

    try:
        found = {entry.name: entry for entry in GGUFReader(path).tensors}
        file = _Blocks(path, found, stack)
        return {
            # The file lists the dimensions from the last to the first.
            name: Stored(
                field,
                file,
                name,
                tuple(int(size) for size in reversed(entry.shape.tolist())),
                _dtype(entry.tensor_type.name),
                place=int(entry.data_offset),
            )
            for name, entry in found.items()
        }
    except MemoryError:
        raise
    except Exception as error:  # the library raises many errors for bytes that are not a GGUF file
        raise InputError(field, str(path), f"a complete GGUF file; {error}") from error


def _dtype(kind: str) -> str:
    """Returns the dtype of the numbers as they are read."""
    return kind if kind in (*_PLAIN, "BF16", *_INTEGERS) else "F32"
