"""How fast this machine reads and writes memory: what every operation is measured against.

A machine that is shared drifts, so the probes take turns with the methods of each case. They are used as
its data are, again and again, and are about as large: of a large case a cache keeps as much for one as for
the other. They are never smaller than 256 MB, since the floor is meant to be the memory's: a small case
that comes out of a cache may pass it, and then shows more than 100%. Beyond 512 MB nothing changes.

A plain fill reads each line of memory before it overwrites it, which an update in place need not do again.
So the write bandwidth is the best of a fill and of what an update in place takes longer than a read, and
never above the read bandwidth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch

SMALLEST = 1 << 28
LARGEST = 1 << 29


@dataclass(frozen=True)
class Traffic:
    """Bytes that an operation must at least read and write."""

    read: int
    written: int

    @property
    def total(self) -> int:
        """Both."""
        return self.read + self.written


@dataclass(frozen=True)
class Bandwidth:
    """Bytes per second."""

    read: float
    write: float

    def floor(self, traffic: Traffic) -> float:
        """Seconds that this traffic takes at least."""
        return traffic.read / self.read + traffic.written / self.write


class Probes:
    """Reads and writes of one buffer: `methods` to be timed, and what their times mean."""

    def __init__(self, size: int, device: str) -> None:
        """Takes a buffer for a case of `size` bytes."""
        buffer = torch.ones(min(max(size, SMALLEST), LARGEST) // 4, device=device)
        self.bytes = 4 * buffer.numel()
        self._reads: dict[str, Callable[[], object]] = {"sum": buffer.sum, "amax": buffer.amax}
        self._writes: dict[str, Callable[[], object]] = {
            "fill": lambda: buffer.fill_(1),
            "zero": buffer.zero_,
        }
        probes = self._reads | self._writes | {"update": buffer.neg_}
        self.methods = {f"probe {name}": method for name, method in probes.items()}
        for method in self.methods.values():
            method()

    def bandwidth(self, seconds: Mapping[str, list[float]]) -> Bandwidth:
        """From the medians of their times."""
        took = {name.removeprefix("probe "): median(values) for name, values in seconds.items()}
        read = min(took[name] for name in self._reads)
        write = min(*(took[name] for name in self._writes), took["update"] - read)
        return Bandwidth(self.bytes / read, self.bytes / max(write, read))
