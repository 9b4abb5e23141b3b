"""Functions with which tests of partitioners deal samples and compare the results."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedtlu_fast.data.partition import Partitioner, ToDeal
from fedtlu_fast.randomness import generator

Codes = NDArray[np.int64]
SOURCES = st.lists(st.integers(0, 8), min_size=1, max_size=120).map(np.array)
"""The value of each sample; not every value has to occur."""


def deal(
    partitioner: Partitioner, sources: Codes, clients: int, seed: int = 0, least: int = 1
) -> list[Codes]:
    """Deals samples by a column named source; returns each client's samples."""
    return partitioner.partition(ToDeal({"source": sources}, clients, least), generator(seed, "partition"))


def assert_dealt(parts: Sequence[Codes], samples: int, clients: int, least: int = 0) -> None:
    """Checks that no sample is dealt twice or unknown, and that no client has fewer than the least size."""
    assert len(parts) == clients
    assert all(part.dtype == np.int64 for part in parts)
    assert min(map(len, parts)) >= least
    dealt = np.concatenate(parts).tolist()
    assert len(set(dealt)) == len(dealt)
    assert set(dealt) <= set(range(samples))


def assert_deals_everything_once(
    parts: Sequence[Codes], sources: Codes, clients: int, least: int = 0
) -> None:
    """Checks the same, and that no sample is left over."""
    assert_dealt(parts, len(sources), clients, least)
    assert sum(map(len, parts)) == len(sources)


def heterogeneity(parts: Sequence[Codes], sources: Codes) -> float:
    """Returns the mean total variation distance between a client's sources and those of all clients."""
    kinds = int(sources.max()) + 1
    overall = np.bincount(sources, minlength=kinds) / len(sources)
    shares = [np.bincount(sources[part], minlength=kinds) / len(part) for part in parts]
    return float(np.mean([np.abs(share - overall).sum() / 2 for share in shares]))


def same(first: Sequence[Codes], second: Sequence[Codes]) -> bool:
    """Tells whether two deals give the same samples to each client."""
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
