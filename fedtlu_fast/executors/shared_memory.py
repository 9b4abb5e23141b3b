"""Memory that a run and its worker processes share: the global vectors, results, and signs of life."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.client_steps.step import Vectors
from fedtlu_fast.errors import InputError
from fedtlu_fast.machine import memory_room, refusal

SLOTS = 2
"""Results that a worker can hold: one that waits for its turn while the next lane is trained."""


@dataclass
class SharedMemory:
    """Memory that all processes see.

    Attributes:
        start: global parameters and buffers.
        slots: [workers][SLOTS] results.
        doing: [workers, 3]: every worker's last `Sign`.
    """

    start: Vectors
    slots: list[list[Vectors]]
    doing: NDArray[np.float64]
    _kept: list[mmap.mmap] = field(default_factory=list)


def share(sizes: tuple[int, int], workers: int) -> SharedMemory:
    """Anonymous shared memory: not limited by the size of /dev/shm, and gone with the last process.

    Args:
        sizes: P and Q, of the parameters and the buffers.
        workers: how many.

    Raises:
        InputError: there is no room for it.
    """
    kept: list[mmap.mmap] = []
    needed = 4 * sum(sizes) * (1 + SLOTS * workers)

    def refused(room: object) -> InputError:
        expected = f"fewer: they share {needed / 1e9:.2f} GB, and {room}"
        return InputError("execution.workers", workers, expected)

    def block(count: int, dtype: torch.dtype) -> Tensor:
        try:
            kept.append(mmap.mmap(-1, max(1, count * dtype.itemsize)))
        except OSError as error:
            raise refused(refusal(error) or error.strerror) from error
        return torch.frombuffer(kept[-1], dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)

    def vectors() -> Vectors:
        return block(sizes[0], torch.float32), block(sizes[1], torch.float32)

    if needed > (room := memory_room()).bytes:
        raise refused(room)
    start = vectors()
    slots = [[vectors() for _ in range(SLOTS)] for _ in range(workers)]
    doing = block(3 * workers, torch.float64).numpy().reshape(workers, 3)
    return SharedMemory(start, slots, doing, kept)
