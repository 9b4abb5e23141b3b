"""Masks: pseudo-random vectors that a seed stands for, by AES-256 in counter mode, as in the paper."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fedtlu_fast.secure.fixed_point import Ring

CHUNK = 2**18
"""Bytes of a mask that are made at a time, so that they stay in the processor's cache."""
BLOCK = 16


def add_mask_(numbers: Ring, seed: bytes, sign: Literal[1, -1]) -> None:
    """Adds the mask of a seed to numbers modulo 2^32 or 2^64 in place, or subtracts it.

    Args:
        numbers: [N].
        seed: 32 bytes, of one mask only.
        sign: 1 adds, -1 subtracts.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES256
    from cryptography.hazmat.primitives.ciphers.modes import CTR

    stream = Cipher(AES256(seed), CTR(bytes(BLOCK))).encryptor()
    size = numbers.dtype.itemsize
    zeros, made = memoryview(bytes(CHUNK)), bytearray(CHUNK + BLOCK - 1)
    for first in range(0, len(numbers), CHUNK // size):
        piece = numbers[first : first + CHUNK // size]
        stream.update_into(zeros[: len(piece) * size], made)
        mask = np.frombuffer(made, numbers.dtype, len(piece))
        if sign > 0:
            piece += mask
        else:
            piece -= mask
