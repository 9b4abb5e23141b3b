"""Measures how fast this machine reads and writes memory, the standard for every operation.

The speed of a shared machine drifts, so the probes take turns with the methods of each case. Like the data of
the case, their buffer is used many times, and it is about as large: a cache keeps an equal part of each. It
is never smaller than 256 MB, since the floor is meant to be the memory's: a small case that stays in a cache
may be faster, and then shows more than 100%. Beyond 512 MB nothing changes.

On a GPU reads and writes share one bus, and the floor adds them up. On a CPU a core waits only for reads: it
writes back lines that it has read while it reads others (an update in place comes as near to the read
bandwidth as a read does). So the CPU's floor is the bytes that are read, plus the bytes written to places
that were not read, at the read bandwidth: a line to be written is read first, or bypasses the caches, which
is not faster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor

from fedtlu_fast.ops import backends

SMALLEST = 1 << 28
LARGEST = 1 << 29


@dataclass(frozen=True)
class Traffic:
    """Counts the bytes that an operation reads and writes; with `in_place` it writes where it has read."""

    read: int
    written: int
    in_place: bool = False

    @property
    def total(self) -> int:
        """Returns the bytes that are read and written."""
        return self.read + self.written


@dataclass(frozen=True)
class Bandwidth:
    """Holds the bandwidths in bytes per second, and whether reads and writes share one bus."""

    read: float
    write: float
    shared: bool

    def floor(self, traffic: Traffic) -> float:
        """Returns the least seconds that this traffic takes."""
        if self.shared:
            return traffic.read / self.read + traffic.written / self.write
        return (traffic.read + (0 if traffic.in_place else traffic.written)) / self.read


class Probes:
    """Reads and writes one buffer: `methods` to time, and the bandwidth that their times mean."""

    def __init__(self, size: int, device: str) -> None:
        """Allocates a buffer for a case of `size` bytes."""
        buffer = torch.ones(min(max(size, SMALLEST), LARGEST) // 4, device=device)
        self.bytes = 4 * buffer.numel()
        self._shared = device != "cpu"
        self._reads: dict[str, Callable[[], object]] = {"sum": buffer.sum, "amax": buffer.amax}
        if device == "cpu" and "native" in backends.live_backends():
            self._reads["read loop"] = partial(_read_loop, buffer)
        self._writes: dict[str, Callable[[], object]] = {
            "fill": partial(buffer.fill_, 1),
            "zero": buffer.zero_,
        }
        self.methods = {f"probe {name}": method for name, method in (self._reads | self._writes).items()}
        for method in self.methods.values():
            method()

    def bandwidth(self, seconds: Mapping[str, list[float]]) -> Bandwidth:
        """Returns the bandwidth from the medians of the methods' times, the fastest of each kind."""
        took = {name.removeprefix("probe "): median(values) for name, values in seconds.items()}
        read, write = (min(took[name] for name in kind) for kind in (self._reads, self._writes))
        return Bandwidth(self.bytes / read, self.bytes / write, shared=self._shared)


def _read_loop(buffer: Tensor) -> int:
    """Runs our read loop: one instruction per 64 bits, with the kernels' prefetching."""
    from fedtlu_fast.ops.native import extension

    return extension.read_loop(buffer.numpy(), torch.get_num_threads())
