"""Every draw is a pure function of (seed, purpose, round, client): never of what was drawn before it.

So a run has the same bits with any number of workers, after a kill and resume, and for one client alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def key(seed: int, purpose: str, round_index: int = 0, client: int = 0) -> int:
    """128 bits that identify one draw."""
    text = f"{seed}/{purpose}/{round_index}/{client}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


def generator(seed: int, purpose: str, round_index: int = 0, client: int = 0) -> np.random.Generator:
    """A counter-based generator (Philox) for one draw or a few that belong together."""
    return np.random.Generator(np.random.Philox(key=key(seed, purpose, round_index, client)))


@contextmanager
def torch_seeded(seed: int, purpose: str, round_index: int = 0, client: int = 0) -> Iterator[None]:
    """Seeds torch's global generators inside, for what draws from them (initialisation, dropout).

    Outside they are as they were.
    """
    with torch.random.fork_rng():
        torch.manual_seed(key(seed, purpose, round_index, client) % 2**63)
        yield
