"""Robust rules: they compare the clients with each other, and so need all of their vectors at once.

Coordinate-wise median and trimmed mean (Yin et al., arXiv 1803.01498). The clients of a round are kept in a
stack [K, P], in memory or in a file that is mapped into it; the rule is applied to some columns at a time.
"""

from __future__ import annotations

import shutil
import tempfile
from math import floor
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


class RobustRule:
    """The median or trimmed mean of the clients' changes; every client counts once, whatever it holds."""

    def __init__(self, config: AggregationConfig, base: Tensor, clients: int) -> None:
        """Makes room for the stack.

        Args:
            config: which rule, and where the stack is to lie.
            base: [P], what the clients start from.
            clients: K at most.
        """
        self.base, self.config = base, config
        self._count = 0
        shape = (clients, len(base))
        if config.spill is None:
            self._stack = torch.empty(shape)
        else:
            # Without a name from the start: it is gone with the process, however that ends.
            with tempfile.TemporaryFile(dir=config.spill) as file:
                self._stack = as_tensor(np.memmap(file, np.float32, "w+", shape=shape))

    def add_(self, client: Tensor, samples: int) -> None:
        """Puts one client's vector [P] on the stack; it may be reused afterwards."""
        self._stack[self._count].copy_(client)
        self._count += 1

    def add_sum_(self, partial: Tensor, samples: int) -> None:
        """Refuses: of a sum nobody knows the terms."""
        raise RuntimeError("robust rules take the clients one by one")

    def change(self) -> Tensor:
        """[P], what the rule makes of the clients' changes; zeros when no client was added."""
        change = torch.zeros_like(self.base)
        if not self._count:
            return change
        for first in range(0, len(self.base), COLUMNS):
            columns = slice(first, first + COLUMNS)
            clients = self._stack[: self._count, columns].to(self.base.device)
            change[columns] = self._rule(clients - self.base[columns])
        return change

    def _rule(self, changes: Tensor) -> Tensor:
        if self.config.rule == "median":
            middle = changes.sort(dim=0).values
            low, high = middle[(len(changes) - 1) // 2], middle[len(changes) // 2]
            return low + (high - low) / 2
        cut = floor(self.config.trim * len(changes))
        return changes.sort(dim=0).values[cut : len(changes) - cut].mean(dim=0)


def check_room(config: AggregationConfig, parameters: int, cohort: int) -> None:
    """Makes sure before the first round that the stack has room.

    Args:
        config: which rule, and where the stack is to lie.
        parameters: P.
        cohort: K.

    Raises:
        InputError: it has not, or the directory for it is not there.
    """
    if config.rule == "mean":
        return
    needed = 4 * parameters * cohort
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
