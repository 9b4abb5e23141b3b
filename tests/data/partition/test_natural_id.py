import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.partitions import SOURCES, assert_deals_everything_once, assert_dealt, deal, same
from support.sampling import examples

from fedtlu_fast import InputError
from fedtlu_fast.data.partition import GroupedNaturalIdPartitioner, NaturalIdPartitioner

MODES = ("allow-smaller", "allow-bigger", "drop-reminder", "strict")


def natural(clients, least):
    return NaturalIdPartitioner(clients, "source", least)


def grouped(clients, size, mode="allow-smaller", least=1):
    return GroupedNaturalIdPartitioner(clients, "source", size, mode, least)


def sources_of(parts, sources):
    return [np.unique(sources[part]).tolist() for part in parts]


@examples(150)
@given(SOURCES, st.integers(1, 10), st.integers(1, 12))
def test_natural_deals_whole_sources(sources, clients, least):
    partitioner = natural(clients, least)
    try:
        parts = deal(partitioner, sources)
    except InputError as error:
        assert error.field == "clients"  # noqa: PT017 (either outcome is right, by the data)
        assert clients > 1 or len(sources) < least
        return
    assert_deals_everything_once(parts, sources, clients, least)
    for source in np.unique(sources):
        holders = [index for index, part in enumerate(parts) if (sources[part] == source).any()]
        assert len(holders) == 1


def test_natural_is_one_topic_per_client():
    sources = np.repeat([0, 1, 2, 3], [5, 9, 6, 7])
    assert sources_of(deal(natural(4, 4), sources), sources) == [[0], [1], [2], [3]]


def test_natural_joins_sources_that_are_too_small():
    sources = np.repeat([0, 1, 2, 3, 4], [5, 1, 1, 6, 2])
    assert sources_of(deal(natural(2, 4), sources), sources) == [[0], [1, 2, 3, 4]]


def test_natural_with_fewer_clients_gives_the_next_source_to_the_poorest():
    sources = np.repeat([0, 1, 2, 3], [9, 4, 6, 4])
    assert sources_of(deal(natural(2, 2), sources), sources) == [[0, 3], [1, 2]]


def test_too_many_clients_for_the_sources_is_refused_with_how_many_there_can_be():
    sources = np.repeat([0, 1, 2], [5, 5, 1])
    with pytest.raises(InputError, match=r"clients: got 3; expected at most 2, .*Use clients=2"):
        deal(natural(3, 4), sources)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_samples_for_the_clients_is_refused(count):
    for partitioner in (natural(8, 1), grouped(8, 1)):
        with pytest.raises(InputError, match="clients"):
            deal(partitioner, np.zeros(count, dtype=np.int64))


@examples(150)
@given(SOURCES, st.integers(1, 5), st.sampled_from(MODES))
def test_groups_hold_so_many_whole_sources(sources, size, mode):
    values = np.unique(sources).tolist()
    left = len(values) % size
    if left and mode == "strict":
        with pytest.raises(InputError, match=f"group_size: got {size}; .*divisor of {len(values)}"):
            deal(grouped(1, size, mode), sources)
        return
    sizes = [size] * (len(values) // size)
    if left and mode == "allow-smaller":
        sizes.append(left)
    elif left and mode == "allow-bigger":
        sizes = [size + left, *sizes[1:]] if sizes else [left]
    if not sizes:
        with pytest.raises(InputError, match="clients: got 1; expected at most 0"):
            deal(grouped(1, size, mode), sources)
        return
    parts = deal(grouped(len(sizes), size, mode), sources)
    assert_dealt(parts, len(sources), len(sizes))
    held = sources_of(parts, sources)
    assert [len(own) for own in held] == sizes
    kept = values[: len(values) - left] if mode == "drop-reminder" else values
    assert sorted(source for own in held for source in own) == kept
    assert sum(map(len, parts)) == int(np.isin(sources, kept).sum())
    with pytest.raises(InputError, match=rf"at most {len(sizes)}, the groups of {size} values of source"):
        deal(grouped(len(sizes) + 1, size, mode), sources)


def test_groups_are_of_neighbours_and_small_ones_are_joined():
    sources = np.repeat(np.arange(7), [4, 4, 1, 1, 4, 4, 4])
    assert sources_of(deal(grouped(4, 2), sources), sources) == [[0, 1], [2, 3], [4, 5], [6]]
    assert sources_of(deal(grouped(3, 2, "allow-bigger"), sources), sources) == [[0, 1, 6], [2, 3], [4, 5]]
    assert sources_of(deal(grouped(3, 2, least=4), sources), sources) == [[0, 1], [2, 3, 4, 5], [6]]
    assert sources_of(deal(grouped(2, 2), sources), sources) == [[0, 1, 6], [2, 3, 4, 5]]


def test_groups_of_one_are_natural_and_nothing_is_drawn():
    sources = np.random.default_rng(3).integers(0, 20, 300)
    assert same(deal(grouped(9, 1, least=4), sources, 1), deal(natural(9, 4), sources, 2))
