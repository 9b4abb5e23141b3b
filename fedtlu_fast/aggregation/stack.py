"""The vectors of a round's clients, for rules that compare them: in memory, or in a file mapped into it."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.config import AggregationConfig
from fedtlu_fast.data.population import as_tensor
from fedtlu_fast.errors import InputError, StorageError
from fedtlu_fast.machine import lies_in_memory, memory_room

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


def stack_bytes(config: AggregationConfig, parameters: int, cohort: int) -> int:
    """What a rule's stack takes in memory or on disk; 0 for rules that need none.

    Args:
        config: which rule.
        parameters: P.
        cohort: K.
    """
    return 4 * parameters * cohort if config.stacks else 0


def check_room(config: AggregationConfig, parameters: int, cohort: int) -> None:
    """Makes sure before the first round that the stack has room.

    Args:
        config: which rule, and where the stack is to lie.
        parameters: P.
        cohort: K.

    Raises:
        InputError: it has not, or the directory for it is not there.
    """
    needed = stack_bytes(config, parameters, cohort)
    if not needed:
        return
    told = f"room for {cohort:,} vectors of {parameters:,} numbers, {needed / 1e9:.2f} GB"
    if config.spill is None:
        room = memory_room()
        if needed > 0.7 * room.bytes:
            raise InputError(
                "aggregation.rule",
                config.rule,
                f"{told}; {room}, of which a stack may take 70%",
                "Set aggregation.spill to a directory with room, or use a smaller cohort.",
            )
        return
    if not Path(config.spill).is_dir():
        raise InputError("aggregation.spill", config.spill, "a directory that exists")
    try:
        with tempfile.TemporaryFile(dir=config.spill):
            free_disk = shutil.disk_usage(config.spill).free
    except OSError as error:
        expected = f"a directory in which files can be made ({error.strerror})"
        raise InputError("aggregation.spill", config.spill, expected) from error
    free = f"{free_disk / 1e9:.2f} GB of disk are free"
    if lies_in_memory(Path(config.spill)):
        room = memory_room()
        free_disk, free = min(free_disk, room.bytes), f"it lies in memory (tmpfs), and {room}"
    if needed > free_disk:
        raise InputError("aggregation.spill", config.spill, f"{told}; {free}")


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
