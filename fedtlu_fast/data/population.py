"""Who holds what: clients whose samples are looked up, or made, only when the client is drawn.

Nothing here grows with the number of clients: a `Population` is a rule, or index arrays that may stay on
disk, and a client is a number.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.data.form import to_device
from fedtlu_fast.data.listed import Listed
from fedtlu_fast.errors import InputError

Indices = NDArray[np.int64]
Batch = tuple[Tensor, ...]
"""Some samples: tensors whose first dimension counts them, such as features and labels."""
Pool = Batch | Listed
"""Samples in memory, as tensors whose first dimension counts them; or samples that are read when needed."""


@dataclass(frozen=True)
class Samples:
    """One client's samples: rows of a pool that many clients may share.

    Attributes:
        pool: what the rows are of.
        rows: [n], which of them, in the client's own order.
    """

    pool: Pool
    rows: Indices

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, places: Indices) -> Batch:
        """The samples at these places, 0 to n - 1, of any shape [...]; gives tensors [..., *]."""
        return _select(self.pool, np.asarray(self.rows[places]))

    def all(self) -> Batch:
        """Every sample, in order, in one batch."""
        return self.take(np.arange(len(self)))

    def alone(self) -> Pool:
        """A pool of these samples and no others; listed samples are not read."""
        return self.pool.part(self.rows) if isinstance(self.pool, Listed) else self.all()


def count(pool: Pool) -> int:
    """How many samples a pool holds."""
    return len(pool) if isinstance(pool, Listed) else len(pool[0])


def on_device(pool: Pool, device: str) -> Pool:
    """The pool with its tensors on a device; of listed samples each batch is sent there when it is made."""
    return pool.on(device) if isinstance(pool, Listed) else to_device(pool, device)


def whole(pool: Pool) -> Batch:
    """All samples of a pool in one batch."""
    return pool.select(np.arange(len(pool))) if isinstance(pool, Listed) else pool


def joined(held: Sequence[Samples]) -> Pool:
    """One pool of several clients' samples, one client after another; listed samples are not read."""
    pools = [own.alone() for own in held]
    if all(isinstance(pool, Listed) for pool in pools):
        return Listed.joined([pool for pool in pools if isinstance(pool, Listed)])
    return tuple(torch.cat(parts) for parts in zip(*map(whole, pools), strict=True))


def take_each(samples: Sequence[Samples], places: Indices) -> Batch:
    """The same number of samples of each of K clients.

    Args:
        samples: of K clients.
        places: [K, ...], within each client's samples.

    Returns:
        Tensors [K, ..., *].
    """
    pool = samples[0].pool
    if all(held.pool is pool for held in samples):
        rows = np.stack([held.rows[own] for held, own in zip(samples, places, strict=True)])
        return _select(pool, rows)
    if isinstance(pool, Listed):
        # All in one call: batches of different clients are filled up to one length.
        apart = [held.alone() for held in samples]
        starts = np.cumsum([0, *map(count, apart)])[:-1]
        together = Listed.joined([own for own in apart if isinstance(own, Listed)])
        rows = np.stack([own + start for own, start in zip(places, starts, strict=True)])
        return together.select(rows)
    taken = [held.take(own) for held, own in zip(samples, places, strict=True)]
    return tuple(torch.stack(parts) for parts in zip(*taken, strict=True))


def _select(pool: Pool, rows: Indices) -> Batch:
    """Rows [...] of every tensor of a pool, as [..., *]; three times faster than ``part[rows]``."""
    if isinstance(pool, Listed):
        return pool.select(rows)
    flat = torch.from_numpy(rows.reshape(-1)).to(pool[0].device)
    return tuple(part.index_select(0, flat).view((*rows.shape, *part.shape[1:])) for part in pool)


def example_samples(population: Population) -> Samples:
    """The global test, as if a client held it: for trying things out, since nobody's data may be to blame."""
    return Samples(population.test, np.arange(count(population.test)))


class Population(Protocol):
    """The clients of a federation and what they hold."""

    @property
    def clients(self) -> int:
        """How many there are; they are numbered from 0."""
        ...

    @property
    def test(self) -> Pool:
        """The global test."""
        ...

    @property
    def fingerprint(self) -> str:
        """Tells these data from others; a resumed run must find the same."""
        ...

    def train(self, client: int) -> Samples:
        """What the client trains on: one sample or more."""
        ...

    def held_out(self, client: int) -> Samples:
        """What the client tests on; may be empty."""
        ...

    def to(self, device: str) -> Self:
        """The same population with what is in memory on this device."""
        ...


@runtime_checkable
class KnowsSizes(Protocol):
    """A population that can tell how much each client holds without making or reading samples."""

    def sizes(self) -> Indices:
        """[C], samples that each client trains on. Takes 8 bytes a client, and time for each."""
        ...


def sizes_of(population: Population, sampler: str = "size or loss") -> Indices:
    """See `KnowsSizes`; `sampler` is what asks.

    Raises:
        InputError: the population does not know.
    """
    if not isinstance(population, KnowsSizes):
        expected = "uniform or fixed, since these data do not tell how much clients hold"
        raise InputError("participation.sampler", sampler, expected)
    return population.sizes()


@dataclass(frozen=True)
class Shares:
    """Which rows each of C clients holds: two arrays, which may lie on disk.

    Attributes:
        rows: [M] int64, the clients' rows one after another.
        starts: [C + 1] int64: client c holds ``rows[starts[c]:starts[c + 1]]``.
    """

    rows: Indices
    starts: Indices

    @classmethod
    def of(cls, parts: Sequence[Indices]) -> Shares:
        """From one array for each client."""
        starts = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
        return cls(np.concatenate([np.empty(0, np.int64), *parts]), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, client: int) -> Indices:
        first, end = self.starts[client], self.starts[client + 1]
        return np.asarray(self.rows[first:end])


@dataclass(frozen=True)
class ArrayPopulation:
    """Clients that hold rows of common arrays.

    Attributes:
        pool: the samples of all clients; in memory or mapped from files.
        shares: the rows each client trains on.
        own_tests: the rows each client tests on.
        test: the global test.
        fingerprint: see `Population`.
    """

    pool: Batch
    shares: Shares
    own_tests: Shares
    test: Batch
    fingerprint: str

    @property
    def clients(self) -> int:
        """See `Population`."""
        return len(self.shares)

    def train(self, client: int) -> Samples:
        """See `Population`."""
        return Samples(self.pool, self.shares[client])

    def held_out(self, client: int) -> Samples:
        """See `Population`."""
        return Samples(self.pool, self.own_tests[client])

    def sizes(self) -> Indices:
        """See `KnowsSizes`: one pass over the shares' starts."""
        return np.diff(self.shares.starts)

    def to(self, device: str) -> Self:
        """See `Population`."""
        return replace(
            self,
            pool=to_device(self.pool, device),
            test=to_device(self.test, device),
        )


def as_tensor(array: NDArray[np.generic]) -> Tensor:
    """An array as a tensor without a copy, also when it is mapped read-only: nobody writes to samples."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)


def digest(arrays: Sequence[NDArray[np.generic]]) -> str:
    """SHA-256 over lengths and contents."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.int64(len(array)).tobytes())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
