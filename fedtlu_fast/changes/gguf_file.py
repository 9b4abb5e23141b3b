"""Reads GGUF files; the package `gguf` dequantises their numbers a piece at a time.

The table of tensors is read here, because the package's own reader makes an array for every word of the
vocabulary, which takes many seconds.
"""

from __future__ import annotations

import struct
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.changes.stored import Stored
from fedtlu_fast.errors import InputError
from fedtlu_fast.extras import check_extra

# Types of GGUF that hold numbers as they are; all others are quantised, and dequantised into float32.
_PLAIN = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
_INTEGERS = ("I8", "I16", "I32", "I64")
# Codes of the values in the header, with their sizes in bytes; text and lists have their own lengths.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_TEXT, _LIST = 8, 9
_ALIGNED = "general.alignment"


@dataclass(frozen=True)
class _Entry:
    """A tensor's place in the file.

    Attributes:
        shape: its shape.
        kind: its type, of `gguf.GGMLQuantizationType`.
        place: the number of its first byte in the file.
    """

    shape: tuple[int, ...]
    kind: Any
    place: int


class _Blocks:
    """An open GGUF file, with the type and place of every tensor."""

    def __init__(self, path: Path, entries: dict[str, _Entry], stack: ExitStack) -> None:
        self.path = path
        self._file = stack.enter_context(path.open("rb", buffering=0))
        self._lock = threading.Lock()
        self._entries = entries

    def flat(self, name: str, start: int, stop: int) -> Tensor:
        from gguf import GGML_QUANT_SIZES
        from gguf.quants import dequantize

        entry = self._entries[name]
        numbers, size = GGML_QUANT_SIZES[entry.kind]  # of one block of numbers with common scales
        first, last = start // numbers, -(-stop // numbers)
        with self._lock:
            self._file.seek(entry.place + first * size)
            raw = self._file.read((last - first) * size)
        if len(raw) < (last - first) * size:
            raise OSError(f"{self.path} ends early")
        plain = _PLAIN.get(entry.kind.name)
        if plain is not None:
            return torch.from_numpy(np.frombuffer(bytearray(raw), dtype=plain))
        values = torch.from_numpy(dequantize(np.frombuffer(raw, dtype=np.uint8), entry.kind))
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
    check_extra("gguf", field, str(path))
    try:
        found = _table(path)
        file = _Blocks(path, found, stack)
    except (OSError, ValueError, KeyError, struct.error, RecursionError) as error:
        raise InputError(field, str(path), f"a complete GGUF file; {error}") from error
    return {
        name: Stored(field, file, name, entry.shape, _dtype(entry.kind.name), place=entry.place)
        for name, entry in found.items()
    }


def _dtype(kind: str) -> str:
    """Returns the dtype of the numbers as they are read."""
    return kind if kind in (*_PLAIN, "BF16", *_INTEGERS) else "F32"


def _table(path: Path) -> dict[str, _Entry]:
    """Reads the names, shapes, types and places of all tensors (versions 2 and 3 of the format)."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    size = path.stat().st_size
    with path.open("rb") as file:
        magic, version, tensors, values = _read(file, "<4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError("it does not begin as a GGUF file of version 2 or 3")
        aligned = 32
        for _ in range(values):
            key = _text(file, size)
            (code,) = _read(file, "<I")
            if key == _ALIGNED and code == 4:
                (aligned,) = _read(file, "<I")
            else:
                _skip(file, code, size)
        listed = []
        for _ in range(tensors):
            name = _text(file, size)
            (dimensions,) = _read(file, "<I")
            # The file lists the dimensions from the last to the first.
            shape = _read(file, f"<{min(dimensions, 99)}Q")[::-1]
            code, place = _read(file, "<IQ")
            listed.append((name, shape, GGMLQuantizationType(code), place))
        if not aligned:
            raise ValueError(f"{_ALIGNED} is 0")
        start = -(-file.tell() // aligned) * aligned
    for name, shape, kind, place in listed:
        numbers, bytes_ = GGML_QUANT_SIZES[kind]
        if start + place + prod(shape) // numbers * bytes_ > size or prod(shape) % numbers:
            raise ValueError(f"{name} ends beyond it")
    return {name: _Entry(shape, kind, start + place) for name, shape, kind, place in listed}


def _read(file: BufferedReader, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _text(file: BufferedReader, size: int) -> str:
    (length,) = _read(file, "<Q")
    if length > size:
        raise ValueError("a name in it is longer than the file")
    return file.read(length).decode()


def _skip(file: BufferedReader, code: int, size: int) -> None:
    """Moves behind a value of the header."""
    if code == _TEXT:
        (length,) = _read(file, "<Q")
        _move(file, length, size)
    elif code == _LIST:
        inner, count = _read(file, "<IQ")
        if inner in _SIZES:
            _move(file, _SIZES[inner] * count, size)
        else:
            for _ in range(count):
                _skip(file, inner, size)
    else:
        _move(file, _SIZES[code], size)


def _move(file: BufferedReader, length: int, size: int) -> None:
    if file.tell() + length > size:
        raise ValueError("a value in it ends beyond it")
    file.seek(length, 1)
