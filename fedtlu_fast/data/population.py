"""The clients and the samples that they hold; a client's samples are looked up or made when it is drawn.

A `Population` is a rule, or index arrays that may stay on disk, and a client is a number. Memory does not
grow with the number of clients.
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
"""Samples as a tuple of tensors, such as features and labels; each tensor's first dimension counts them."""
Pool = Batch | Listed
"""A set of samples from which batches are taken: tensors in memory, or samples that are read when needed."""


@dataclass(frozen=True)
class Samples:
    """One client's samples: rows of a pool that many clients may share.

    Attributes:
        pool: the pool from which the client's samples are taken.
        rows: [n] int64, the client's rows of the pool, in the client's own order.
    """

    pool: Pool
    rows: Indices

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, places: Indices) -> Batch:
        """Returns the samples at the places [...], each from 0 to n - 1, as tensors [..., *]."""
        return _select(self.pool, np.asarray(self.rows[places]))

    def all(self) -> Batch:
        """Returns all samples of the client, in order, as one batch."""
        return self.take(np.arange(len(self)))

    def alone(self) -> Pool:
        """Returns a pool that holds only this client's samples; `Listed` samples are not read."""
        return self.pool.part(self.rows) if isinstance(self.pool, Listed) else self.all()


def count(pool: Pool) -> int:
    """Returns the number of samples in a pool."""
    return len(pool) if isinstance(pool, Listed) else len(pool[0])


def on_device(pool: Pool, device: str) -> Pool:
    """Returns the pool on a device; a `Listed` pool sends each batch there when it is made."""
    return pool.on(device) if isinstance(pool, Listed) else to_device(pool, device)


def whole(pool: Pool) -> Batch:
    """Returns all samples of a pool as one batch."""
    return pool.select(np.arange(len(pool))) if isinstance(pool, Listed) else pool


def joined(held: Sequence[Samples]) -> Pool:
    """Returns one pool of several clients' samples, client after client; `Listed` samples are not read."""
    pools = [own.alone() for own in held]
    if all(isinstance(pool, Listed) for pool in pools):
        return Listed.joined([pool for pool in pools if isinstance(pool, Listed)])
    return tuple(torch.cat(parts) for parts in zip(*map(whole, pools), strict=True))


def take_each(samples: Sequence[Samples], places: Indices) -> Batch:
    """Returns the same number of samples from each of K clients.

    Args:
        samples: [K], the clients' samples.
        places: [K, ...], places within each client's samples, from 0.

    Returns:
        Tensors [K, ..., *].
    """
    pool = samples[0].pool
    if all(held.pool is pool for held in samples):
        rows = np.stack([held.rows[own] for held, own in zip(samples, places, strict=True)])
        return _select(pool, rows)
    if isinstance(pool, Listed):
        # One call for all clients, so that the collate function fills their samples up to one length.
        apart = [held.alone() for held in samples]
        starts = np.cumsum([0, *map(count, apart)])[:-1]
        together = Listed.joined([own for own in apart if isinstance(own, Listed)])
        rows = np.stack([own + start for own, start in zip(places, starts, strict=True)])
        return together.select(rows)
    taken = [held.take(own) for held, own in zip(samples, places, strict=True)]
    return tuple(torch.stack(parts) for parts in zip(*taken, strict=True))


def _select(pool: Pool, rows: Indices) -> Batch:
    """Returns rows [...] of every tensor of a pool, as tensors [..., *].

    ``index_select`` is three times as fast here as ``part[rows]``.
    """
    if isinstance(pool, Listed):
        return pool.select(rows)
    flat = torch.from_numpy(rows.reshape(-1)).to(pool[0].device)
    return tuple(part.index_select(0, flat).view((*rows.shape, *part.shape[1:])) for part in pool)


def example_samples(population: Population) -> Samples:
    """Returns the global test as `Samples`, with which a run tries models and engines before the first round.

    A client's own samples are not used, because an error in them should be reported as that client's error.
    """
    return Samples(population.test, np.arange(count(population.test)))


class Population(Protocol):
    """The clients of a federation and what they hold."""

    @property
    def clients(self) -> int:
        """The number of clients; they are numbered from 0."""
        ...

    @property
    def test(self) -> Pool:
        """The global test."""
        ...

    @property
    def fingerprint(self) -> str:
        """A text that identifies the data; a resumed run refuses data with another fingerprint."""
        ...

    def train(self, client: int) -> Samples:
        """Returns the client's training samples, one or more."""
        ...

    def held_out(self, client: int) -> Samples:
        """Returns the client's own test samples; may be empty."""
        ...

    def to(self, device: str) -> Self:
        """Returns the same population with its tensors on this device."""
        ...


@runtime_checkable
class KnowsSizes(Protocol):
    """A population that knows how many samples each client holds without making or reading them."""

    def sizes(self) -> Indices:
        """Returns [C] int64, each client's number of training samples; cost grows with the clients."""
        ...


def sizes_of(population: Population, sampler: str = "size or loss") -> Indices:
    """Returns [C] int64, the number of training samples of each client.

    Args:
        population: the clients.
        sampler: the sampler that needs the sizes, for the message.

    Raises:
        InputError: the population does not know the sizes (see `KnowsSizes`).
    """
    if not isinstance(population, KnowsSizes):
        expected = "uniform or fixed, since these data do not tell how much clients hold"
        raise InputError("participation.sampler", sampler, expected)
    return population.sizes()


@dataclass(frozen=True)
class Shares:
    """The rows that each of C clients holds, in two arrays, which may lie on disk.

    Attributes:
        rows: [M] int64, the clients' rows one after another.
        starts: [C + 1] int64: client c holds ``rows[starts[c]:starts[c + 1]]``.
    """

    rows: Indices
    starts: Indices

    @classmethod
    def of(cls, parts: Sequence[Indices]) -> Shares:
        """Makes shares from one array of rows for each client."""
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
        shares: the rows that each client trains on.
        own_tests: the rows that each client tests on.
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
    """Returns an array, which may be mapped read-only, as a tensor without a copy; nobody writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)


def digest(arrays: Sequence[NDArray[np.generic]]) -> str:
    """Returns the SHA-256 over lengths and contents of the arrays, in hexadecimal."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.int64(len(array)).tobytes())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
