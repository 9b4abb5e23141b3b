"""How fast this machine reads and writes memory: what every operation is measured against.

A machine that is shared drifts, so the probes take turns with the methods of each case. They are used as
its data are, again and again, and are about as large: of a large case a cache keeps as much for one as for
the other. They are never smaller than 256 MB, since the floor is meant to be the memory's: a small case
that comes out of a cache may pass it, and then shows more than 100%. Beyond 512 MB nothing changes.

On a GPU reads and writes share one bus, and the floor adds them up. A processor's cores are another matter:
what a core brings in is what it waits for, while it writes lines that it had already read back beside its
reading (an update in place comes as near to the read bandwidth as a read does). There the floor is the bytes
that are read, and those written to other places than were read, at the read bandwidth: a line to be written
is brought in first, or goes out past the caches, which is not faster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor

from fedtlu_fast.ops import dispatch

SMALLEST = 1 << 28
LARGEST = 1 << 29


@dataclass(frozen=True)
class Traffic:
    """Bytes that an operation must at least read and write; `in_place`: it writes what it has read."""

    read: int
    written: int
    in_place: bool = False

    @property
    def total(self) -> int:
        """Both."""
        return self.read + self.written


@dataclass(frozen=True)
class Bandwidth:
    """Bytes per second, and whether reads and writes share one bus."""

    read: float
    write: float
    shared: bool

    def floor(self, traffic: Traffic) -> float:
        """Seconds that this traffic takes at least."""
        if self.shared:
            return traffic.read / self.read + traffic.written / self.write
        return (traffic.read + (0 if traffic.in_place else traffic.written)) / self.read


class Probes:
    """Reads and writes of one buffer: `methods` to be timed, and what their times mean."""

    def __init__(self, size: int, device: str) -> None:
        """Takes a buffer for a case of `size` bytes."""
        buffer = torch.ones(min(max(size, SMALLEST), LARGEST) // 4, device=device)
        self.bytes = 4 * buffer.numel()
        self._shared = device != "cpu"
        self._reads: dict[str, Callable[[], object]] = {"sum": buffer.sum, "amax": buffer.amax}
        if device == "cpu" and "native" in dispatch.live_backends():
            self._reads["read loop"] = partial(_read_loop, buffer)
        self._writes: dict[str, Callable[[], object]] = {
            "fill": partial(buffer.fill_, 1),
            "zero": buffer.zero_,
        }
        self.methods = {f"probe {name}": method for name, method in (self._reads | self._writes).items()}
        for method in self.methods.values():
            method()

    def bandwidth(self, seconds: Mapping[str, list[float]]) -> Bandwidth:
        """From the medians of their times, the fastest of each kind."""
        took = {name.removeprefix("probe "): median(values) for name, values in seconds.items()}
        read, write = (min(took[name] for name in kind) for kind in (self._reads, self._writes))
        return Bandwidth(self.bytes / read, self.bytes / write, shared=self._shared)


def _read_loop(buffer: Tensor) -> int:
    """Our own: one instruction for 64 bits, and memory asked for ahead, as in the kernels."""
    from fedtlu_fast.ops.native import extension

    return extension.read_loop(buffer.numpy(), torch.get_num_threads())
