"""Memory of a device: how much of it can be allocated, and whether an error means that it ran out."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

import torch

from fedtlu_fast.machine import memory_room


def free_bytes(device: str) -> int:
    """The bytes that can be allocated now; for the CPU see `machine.memory_room`."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    return memory_room().bytes


def give_back() -> None:
    """Makes the C library (glibc) return freed memory, which it otherwise keeps, to the system."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; on the CPU torch raises a plain RuntimeError for it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
