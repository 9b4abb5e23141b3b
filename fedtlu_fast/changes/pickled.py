"""Reads state dicts that ``torch.save`` wrote, with ``weights_only=True``: no code in them runs.

This holds since PyTorch 2.6, which the package requires. Only scores read such files; everything else of the
package takes safetensors files only.
"""

from __future__ import annotations

import ctypes
import mmap
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedtlu_fast.changes.memory import Memory
from fedtlu_fast.changes.stored import Stored
from fedtlu_fast.errors import InputError

_ASKED = re.compile(r"nsupported (?:global: )?(?:GLOBAL|class) ([\w.]+)")
"""Finds in PyTorch's message what a pickle holds beside tensors."""
SUFFIXES = (".bin", ".pt", ".pth")


def tensors_of(field: str, path: Path) -> dict[str, Stored]:
    """Returns the tensors of a state dict in a file; they stay in the file until they are read.

    Args:
        field: ``BEFORE``, ``AFTER`` or ``BASE``, for messages.
        path: the file. Entries of its mapping that are no tensors are left out.

    Raises:
        InputError: The file is damaged, holds anything but tensors and plain values, or holds no state dict.
    """
    expected = "a file of torch.save that holds a state dict: names and tensors, and no objects"
    fix = "If you trust the file, load it where it was made and save the state dict with safetensors.torch."
    try:
        if not path.is_file():
            raise ValueError("it does not exist" if not path.exists() else "it is not a regular file")
        mapped = _is_zip(path)  # PyTorch maps only such files; it reads older ones as a whole
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of other versions
            found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        asked = _ASKED.search(str(error))
        reason = f"this pickle holds {asked[1]} and was not opened" if asked else "this pickle was not opened"
        raise InputError(field, str(path), f"{expected}; {reason}", fix) from error
    except Exception as error:  # PyTorch raises many errors for bytes that it did not write
        raise InputError(field, str(path), f"{expected}; {error}", fix) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    tensors = {name: x for name, x in found.items() if isinstance(x, Tensor)} if _is_dict(found) else {}
    if not tensors:
        raise InputError(field, str(path), expected, fix)
    return (_Mapped(tensors) if mapped else Memory(tensors)).stored(field)


def _is_dict(found: Any) -> bool:
    return isinstance(found, Mapping) and all(isinstance(name, str) for name in found)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


class _Mapped(Memory):
    """Tensors in a file that is mapped into memory; pages that were read are given back."""

    def flat(self, name: str, start: int, stop: int) -> Tensor:
        piece = super().flat(name, start, stop)
        copied = piece.clone()
        if piece.untyped_storage().data_ptr() == self.tensors[name].untyped_storage().data_ptr():
            _give_back(piece)
        return copied


def _give_back(piece: Tensor) -> None:
    """Tells the system that it may drop the pages of a mapped file; it reads them again if needed."""
    advise = getattr(ctypes.CDLL(None), "madvise", None) if hasattr(mmap, "MADV_DONTNEED") else None
    if advise is None:
        return
    first = -(-piece.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (piece.data_ptr() + piece.numel() * piece.element_size()) // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first:
        advise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)
