"""Places the arrays of a fuzzed call between guard bytes, at odd addresses, or in read-only pages."""

from __future__ import annotations

import random
import tempfile
from typing import Any, TypeGuard

import numpy as np

Array = np.ndarray[Any, Any]


class Dice(random.Random):
    """Makes every choice of one case; the same name draws the same choices."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.bulk = np.random.default_rng(self.getrandbits(64))

    def often(self) -> bool:
        return self.random() < 0.5

    def rarely(self) -> bool:
        return self.random() < 0.08


class Vector(np.ndarray[Any, Any]):
    """Subclasses ndarray, as memmap and matrix do."""


class Pages:
    """Holds pages that the processor refuses to write to; all cases share one file."""

    def __init__(self) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(np.random.default_rng(0).bytes(1 << 16))
            file.flush()
            self.bytes = np.memmap(file.name, mode="r", dtype=np.uint8)

    def vector(self, dice: Dice, dtype: np.dtype[Any], size: int) -> Array | None:
        """Returns a memmap of the pages, or None if they are too few."""
        size_in_bytes = size * dtype.itemsize
        start = dice.randrange(64)
        if start + size_in_bytes > self.bytes.size:
            return None
        return self.bytes[start : start + size_in_bytes].view(dtype)


class Memory:
    """Holds the blocks in which the arrays of one case lie; a write outside of the target changes a block."""

    def __init__(self, dice: Dice, pages: Pages) -> None:
        self.dice = dice
        self.pages = pages
        self.blocks: list[Array] = []

    def put(self, values: Array) -> Array:
        """Copies an array to an address of any alignment.

        Some copies have no guard bytes, so that AddressSanitizer sees reads beyond them.
        """
        head, tail = (self.dice.choice((0, 0, 64, self.dice.randrange(1, 64))) for _ in range(2))
        block = np.frombuffer(self.dice.randbytes(head + tail), dtype=np.uint8)
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        block = np.concatenate([block[:head], data, block[head:]])
        self.blocks.append(block)
        placed = block[head : head + data.size].view(values.dtype).reshape(values.shape)
        return placed.view(Vector) if self.dice.rarely() else placed

    def beside(self, array: Array, dtype: np.dtype[Any], shift: int, size: int) -> Array | None:
        """Returns `size` elements at `shift` bytes from `array`, in its block; None if they do not fit."""
        for block in self.blocks:
            at = address(array) - address(block) + shift
            if 0 <= address(array) - address(block) <= block.size and block.size:
                stop = at + size * dtype.itemsize
                return block[at:stop].view(dtype) if at >= 0 and stop <= block.size else None
        return None

    def snapshot(self) -> list[Array]:
        return [block.copy() for block in self.blocks]

    def restore(self, snapshot: list[Array]) -> None:
        for block, before in zip(self.blocks, snapshot, strict=True):
            block[:] = before

    def changed(self, snapshot: list[Array], *targets: Array) -> str | None:
        """Returns the place of a changed byte outside of the targets, or None."""
        for index, (block, before) in enumerate(zip(self.blocks, snapshot, strict=True)):
            if np.array_equal(block, before):
                continue
            at = np.flatnonzero(block != before) + address(block)
            inside = np.zeros(at.shape, dtype=bool)
            for target in targets:
                inside |= (at >= address(target)) & (at < address(target) + target.nbytes)
            outside = at[~inside]
            if outside.size:
                what = f", {int(outside[0]) - address(targets[0])} from the target's start" if targets else ""
                return f"byte {int(outside[0]) - address(block)} of block {index}{what}"
        return None


def is_array(given: Any) -> TypeGuard[Array]:
    """Tells whether an object is an array, or claims to be one."""
    return issubclass(type(given), np.ndarray)


def address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])
