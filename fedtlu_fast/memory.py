"""Tells how much memory of a device can be allocated, and whether an error means that it ran out."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

import torch

from fedtlu_fast.machine import memory_room


def free_bytes(device: str) -> int:
    """Returns the bytes that can be allocated on a device now; for the CPU see `machine.memory_room`."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    return memory_room().bytes


def give_back() -> None:
    """Makes the C library (glibc) return freed memory to the system instead of keeping it."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error means that memory ran out; for the CPU, torch raises a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
