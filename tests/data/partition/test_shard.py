import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.partitions import SOURCES, assert_dealt, deal, same
from support.sampling import examples

from fedtlu_fast import InputError
from fedtlu_fast.data.partition import Shard


def runs(part, sources):
    """Returns the lengths of a client's runs of samples that are consecutive in the sorted order."""
    place = np.argsort(np.argsort(sources, kind="stable"))[part]
    breaks = np.flatnonzero(np.diff(place) != 1) + 1
    return [len(run) for run in np.split(place, breaks)]


@examples(200)
@given(
    SOURCES,
    st.integers(1, 12),
    st.none() | st.integers(1, 4),
    st.none() | st.integers(1, 9),
    st.booleans(),
    st.integers(0, 9),
)
def test_clients_hold_whole_shards(sources, clients, each, size, keep, seed):
    partitioner = Shard(each, shard_size=size, keep_incomplete_shard=keep)
    whole = size or (len(sources) // (clients * each) if each else 0)
    made = (
        -(-len(sources) // whole)
        if whole and keep and each is None
        else len(sources) // whole
        if whole
        else 0
    )
    if (each is None and size is None) or made < clients * (each or 1):
        with pytest.raises(InputError, match=r"shard_size|clients: got .*shards for all"):
            deal(partitioner, sources, clients, seed)
        return
    parts = deal(partitioner, sources, clients, seed)
    assert_dealt(parts, len(sources), clients, least=1)
    if each is not None:
        assert [len(part) for part in parts] == [each * whole] * clients
    else:
        dealt = len(sources) if keep else made * whole
        assert sum(map(len, parts)) == dealt
        held = [-(-len(part) // whole) for part in parts]
        assert max(held) - min(held) <= 1
    incomplete = len(sources) % whole
    for part in parts:
        assert sum(run % whole not in (0, incomplete) for run in runs(part, sources)) == 0


def test_two_shards_a_client_are_two_digits_at_most_as_in_the_paper():
    """The setting of McMahan et al.: 60,000 samples of 10 digits, 200 shards of 300, two for each client."""
    sources = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 6000))
    parts = deal(Shard(2), sources, 100)
    assert [len(part) for part in parts] == [600] * 100
    kinds = [len(set(sources[part].tolist())) for part in parts]
    assert set(kinds) <= {1, 2}
    assert kinds.count(2) > 70  # by chance 90.5 on average


def test_the_same_seed_deals_the_same():
    sources = np.repeat(np.arange(8), 10)
    first, again, other = (deal(Shard(2), sources, 5, seed) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)
