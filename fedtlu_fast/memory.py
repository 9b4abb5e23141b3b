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
    # The two young generations hold what was just made. A full search takes up to 0.4 s once transformers is
    # imported, and found no tensor.
    gc.collect(1)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed() -> None:
    """Makes the C library (glibc) keep freed memory for the next tensors, in this process from now on.

    Otherwise it gives blocks back to the system in every training step, and takes them anew, page by page,
    which is up to a fifth of a step's time. It is for processes that only train, all of whose steps are
    alike.
    """
    # Of malloc.h. The first limit can be no higher (larger blocks still go back); setting the second alone
    # would fix the first at 128 KiB.
    limits = {"M_MMAP_THRESHOLD": (-3, 2**25), "M_TRIM_THRESHOLD": (-1, 2**28)}
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for number, value in limits.values():
            library.mallopt(number, value)


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error means that memory ran out; for the CPU, torch raises a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
