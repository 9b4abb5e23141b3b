"""Makes random generators: every draw is a pure function of (seed, purpose, round, client).

A draw does not depend on earlier draws. So a run has the same bits with any number of workers, after a kill
and resume, and for one client alone.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

HALF = 2**64
ALONE = threading.RLock()
"""The lock for process-wide state: the global generators and PyTorch's settings."""


def key(seed: int, purpose: str, round_index: int = 0, client: int = 0) -> int:
    """Returns 128 bits that identify one draw, as a non-negative integer (ours: BLAKE2b of the arguments)."""
    text = f"{seed}/{purpose}/{round_index}/{client}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


def generator(seed: int, purpose: str, round_index: int = 0, client: int = 0) -> np.random.Generator:
    """Returns a counter-based generator (Philox) for one draw, or for a few that belong together."""
    return np.random.Generator(np.random.Philox(key=key(seed, purpose, round_index, client)))


class Draws:
    """Makes generators for very many draws; it reuses one object, which takes 2 us instead of 17."""

    def __init__(self) -> None:
        self._philox = np.random.Philox(key=0)
        self._generator = np.random.Generator(self._philox)
        self._fresh = self._philox.state

    def generator(
        self, seed: int, purpose: str, round_index: int = 0, client: int = 0
    ) -> np.random.Generator:
        """Returns a generator with the draws of `randomness.generator`; it is valid until the next call."""
        own = key(seed, purpose, round_index, client)
        self._fresh["state"]["key"][:] = (own % HALF, own // HALF)
        self._philox.state = self._fresh
        return self._generator


@contextmanager
def torch_seeded(seed: int, purpose: str, round_index: int = 0, client: int = 0) -> Iterator[None]:
    """Seeds the global generators for code that draws from them (initialisation, dropout).

    Their states are restored afterwards. All threads share the global generators, so other runs of the
    process wait meanwhile. Threads of the caller that draw from them cannot be kept from it.
    """
    own = key(seed, purpose, round_index, client) % 2**63
    with ALONE, _generators_kept():
        # We seed only the CPU and a GPU in use, because `torch.manual_seed` costs ten times as much.
        torch.default_generator.manual_seed(own)
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed_all(own)
        np.random.mtrand.set_bit_generator(np.random.MT19937(own))
        random.seed(own)
        yield


class SeededWhereDrawn:
    """Does the work of `torch_seeded` for code that is called many times, such as a model's training.

    The first call finds out whether the code draws from the global generators. If it does not, later calls
    leave the generators alone and need not wait for other threads.
    """

    def __init__(self) -> None:
        self._draws: bool | None = None

    @contextmanager
    def __call__(self, seed: int, purpose: str, round_index: int, client: int) -> Iterator[None]:
        """Seeds the global generators, if the code draws from them; see `torch_seeded`."""
        if self._draws is False:
            yield
            return
        with torch_seeded(seed, purpose, round_index, client):
            before = _states() if self._draws is None else []
            yield
            if self._draws is None:
                self._draws = _states() != before


@contextmanager
def _generators_kept() -> Iterator[None]:
    cpu, plain = torch.default_generator.get_state(), random.getstate()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    numpy_generator = np.random.mtrand.get_bit_generator()
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    try:
        yield
    finally:
        torch.default_generator.set_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)
        np.random.mtrand.set_bit_generator(numpy_generator)
        if isinstance(numpy_generator, np.random.MT19937):  # its state may hold a second normal draw
            np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(plain)


def _states() -> list[bytes | str]:
    """Returns the states of the global generators in a form that can be compared."""
    states = [torch.default_generator.get_state()]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states += torch.cuda.get_rng_state_all()
    legacy = np.random.mtrand.get_bit_generator().state["state"]
    drawn = legacy["key"].tobytes(), str(legacy["pos"]), repr(random.getstate())
    return [*(state.numpy().tobytes() for state in states), *drawn]


if hasattr(os, "register_at_fork"):
    # A forked process lacks the other threads, one of which may hold the lock and would never release it.
    os.register_at_fork(before=ALONE.acquire, after_in_parent=ALONE.release, after_in_child=ALONE.release)
