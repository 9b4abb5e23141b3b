"""Refers to the tensors of a checkpoint; their numbers are read later, a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from fedtlu_fast.errors import InputError

# Dtypes of eight bits or fewer per number. PyTorch converts only those of eight bits.
_NARROW = ("F8", "F6", "F4")
_FLOATING = ("F64", "F32", "F16", "BF16", *_NARROW)
DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""Maps torch's names of floating-point dtypes of more than eight bits to those of safetensors."""


PIECE = 1 << 18
"""The number of elements that are read and computed at a time. The last digits of statistics depend on it."""


def pieces(count: int) -> Iterator[tuple[int, int]]:
    """Yields the bounds of the pieces of a tensor with this number of elements, in order."""
    for start in range(0, count, PIECE):
        yield start, min(start + PIECE, count)


class Source(Protocol):
    """Holds tensors by name: an open file, a model in memory, or products of an adapter's matrices."""

    def flat(self, name: str, start: int, stop: int) -> Tensor:
        """Returns the elements ``start:stop`` of a tensor in row-major order, on the CPU, in their dtype."""
        ...


@dataclass(frozen=True)
class Stored:
    """Refers to one tensor.

    Attributes:
        field: the checkpoint that the tensor belongs to, ``BEFORE``, ``AFTER`` or ``BASE``, for messages.
        source: the place that holds the numbers.
        name: the tensor's name in the source.
        shape: the tensor's shape.
        dtype: the name of the tensor's dtype, as in safetensors: ``BF16``, for example.
        alias: whether this is a second name for a tensor that the source holds under another name.
        place: the number of the first byte in its file. Tensors are read in the order of their places.
    """

    field: str
    source: Source
    name: str
    shape: tuple[int, ...]
    dtype: str
    alias: bool = False
    place: int = 0

    @property
    def floating(self) -> bool:
        """Tells whether the tensor holds real floating-point numbers."""
        return self.dtype.startswith(_FLOATING)

    @property
    def narrow(self) -> bool:
        """Tells whether the numbers have eight bits or fewer, as in quantised models."""
        return self.dtype.startswith(_NARROW)

    @property
    def count(self) -> int:
        """Returns the number of elements."""
        return prod(self.shape)

    def values(self, start: int, stop: int) -> Tensor:
        """Reads the elements ``start:stop`` in row-major order, in float64."""
        return self.flat(start, stop).to(torch.float64)

    def flat(self, start: int, stop: int) -> Tensor:
        """Reads the elements ``start:stop`` in row-major order, in a dtype that float64 holds exactly.

        Raises:
            InputError: The numbers cannot be read, or PyTorch does not convert their dtype.
        """
        try:
            read = self.source.flat(self.name, start, stop)
            # Of types with eight bits, only those that PyTorch can convert are usable.
            return read.to(torch.float32) if read.element_size() == 1 else read
        except (MemoryError, InputError):
            raise
        except OSError as error:
            raise InputError(f"{self.field}: {self.name}", str(error), "a tensor that can be read") from error
        except Exception as error:  # errors of the library, or of torch for a dtype that it cannot convert
            raise InputError(
                f"{self.field}: {self.name}",
                self.dtype,
                "a dtype that PyTorch converts: F64, F32, F16, BF16 or F8",
                f"Save the checkpoint in one of these dtypes. ({error})",
            ) from error


@dataclass(frozen=True)
class Checkpoint:
    """Holds the tensors of one checkpoint, or of one model in memory.

    Attributes:
        field: ``BEFORE``, ``AFTER`` or ``BASE``, for messages.
        source: the path or model that the user gave, for messages.
        tensors: the tensors by name.
        not_read: sentences about files and tensors that were not read.
        ordered: whether the tensors are in the model's own order, as in memory; files sort them by name.
        notes: sentences about how files were read.
        products: the changes that an adapter makes to weights of its base model, by the weights' names. The
            adapter's whole tensors are in `tensors`.
        base: the name of an adapter's base model; None: this is no adapter.
    """

    field: str
    source: str
    tensors: dict[str, Stored]
    not_read: tuple[str, ...] = ()
    ordered: bool = False
    notes: tuple[str, ...] = ()
    products: dict[str, Stored] | None = None
    base: str | None = None
