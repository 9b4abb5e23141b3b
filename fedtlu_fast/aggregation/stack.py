"""The vectors of a round's clients, for rules that compare them: in memory, or in a file mapped into it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.config import AggregationConfig
from fedtlu_fast.data.population import as_tensor
from fedtlu_fast.errors import InputError
from fedtlu_fast.memory import free_bytes

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
        """
        self.base = base
        self._count = 0
        shape = (clients, len(base))
        if spill is None:
            self._rows = torch.empty(shape)
        else:
            # Without a name from the start: it is gone with the process, however that ends.
            with tempfile.TemporaryFile(dir=spill) as file:
                self._rows = as_tensor(np.memmap(file, np.float32, "w+", shape=shape))

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
        if needed > 0.7 * free_bytes("cpu"):
            free = f"{free_bytes('cpu') / 1e9:.2f} GB of memory are free"
            raise InputError(
                "aggregation.rule",
                config.rule,
                f"{told}; {free}",
                "Set aggregation.spill to a directory with room, or use a smaller cohort.",
            )
        return
    if not Path(config.spill).is_dir():
        raise InputError("aggregation.spill", config.spill, "a directory that exists")
    free_disk = shutil.disk_usage(config.spill).free
    if needed > free_disk:
        raise InputError(
            "aggregation.spill", config.spill, f"{told}; {free_disk / 1e9:.2f} GB of disk are free"
        )
