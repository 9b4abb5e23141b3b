"""Keeps the vectors of a round's clients for rules that compare them, in memory or in a mapped file."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
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
"""The directory for the file of a stack; None: the stack is in memory."""
BLOCK = 2**26
"""Number of values that are treated at a time: 256 MiB, which a GPU has room for."""


class Stack:
    """Up to K vectors [P] float32; `len` returns their number."""

    def __init__(self, base: Tensor, clients: int, spill: str | None = None) -> None:
        """Reserves room for all vectors.

        Args:
            base: [P], the parameters with which the clients start; rows and blocks are returned on its
                device.
            clients: K, the largest number of vectors.
            spill: the directory for the file; None: in memory.

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
        """Copies one client's vector [P] into the stack."""
        self._rows[self._count].copy_(client)
        self._count += 1

    def row(self, place: int) -> Tensor:
        """Returns [P], the vector that was added as number `place`, from 0; not to be changed."""
        return self._rows[place].to(self.base.device)

    def blocks(self, places: Sequence[int] | None = None) -> Iterator[tuple[slice, list[Tensor]]]:
        """Yields some columns at a time: their slice, and the vectors' values there; not to be changed.

        Args:
            places: the vectors that are wanted, at least one; None for all.
        """
        rows = self._rows[: self._count].unbind() if places is None else [self._rows[at] for at in places]
        step = max(1, BLOCK // len(rows))
        for first in range(0, len(self.base), step):
            columns = slice(first, first + step)
            yield columns, [row[columns].to(self.base.device) for row in rows]


def _mapped(folder: str, shape: tuple[int, int]) -> Tensor:
    """Maps a new file with room for float32 numbers, whose blocks on the disk are reserved first.

    Without reserved blocks, a write into the mapping on a full disk would end the process by a signal
    (SIGBUS); now a full disk is an error at the start. The file has no name, so that it disappears with the
    process in any case.
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
    zeros = bytes(2**20)  # for macOS, and for file systems that cannot reserve blocks
    for first in range(0, count, len(zeros)):
        file.write(zeros[: count - first])
    file.flush()
