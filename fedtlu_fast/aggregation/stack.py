"""The vectors of a round's clients, for rules that compare them: in memory, or in a file mapped into it."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from typing import IO, Annotated

import numpy as np
import torch
from pydantic import AfterValidator
from torch import Tensor

from fedtlu_fast.data.population import as_tensor
from fedtlu_fast.errors import StorageError
from fedtlu_fast.places import absolute, at_home

Spill = Annotated[
    str | None, AfterValidator(lambda given: None if given is None else absolute(str(at_home(given))))
]
"""A directory for the file of a stack; None for memory."""
COLUMNS = 2**16
"""Coordinates that are treated at a time."""


class Stack:
    """Up to K vectors [P], float32; `len` tells how many there are."""

    def __init__(self, base: Tensor, clients: int, spill: str | None = None) -> None:
        """Makes room.

        Args:
            base: [P], what the clients start from; rows and blocks come on its device.
            clients: K at most.
            spill: directory for the file; None: in memory.

        Raises:
            StorageError: the directory has no room for the file.
        """
        self.base = base
        self._count = 0
        shape = (clients, len(base))
        if spill is None:
            self._rows = torch.empty(shape)
        else:
            self._rows = _mapped(spill, shape)

    def __len__(self) -> int:
        return self._count

    def add_(self, client: Tensor) -> None:
        """Copies one client's vector [P]."""
        self._rows[self._count].copy_(client)
        self._count += 1

    def row(self, place: int) -> Tensor:
        """[P], the vector that was added as number `place`, from 0; not to be changed."""
        return self._rows[place].to(self.base.device)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Some columns at a time: which, and all vectors there, [K, n]; not to be changed."""
        for first in range(0, len(self.base), COLUMNS):
            columns = slice(first, first + COLUMNS)
            yield columns, self._rows[: self._count, columns].to(self.base.device)


def _mapped(folder: str, shape: tuple[int, int]) -> Tensor:
    """Room for float32 numbers in a file, all of whose blocks are there before it is mapped.

    A write into a mapping that finds no free block ends the process by a signal (SIGBUS); here a full disk is
    an error. The file has no name from the start, so that it is gone with the process, however that ends.
    """
    count = 4 * shape[0] * shape[1]
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file, count)
            return as_tensor(np.memmap(file, np.float32, "r+", shape=shape))
    except OSError as error:
        raise StorageError(
            f"aggregation.spill={folder}: {count / 1e9:.2f} GB cannot be reserved there: {error.strerror}. "
            f"Make room there (another directory needs a new run)"
        ) from error


def _reserve(file: IO[bytes], count: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, count)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    zeros = bytes(2**20)  # macOS, and file systems that do not reserve
    for first in range(0, count, len(zeros)):
        file.write(zeros[: count - first])
    file.flush()
