import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.partitions import SOURCES, assert_deals_everything_once, assert_dealt, deal, same
from support.sampling import examples

from fedtlu_fast import InputError
from fedtlu_fast.data.partition import GroupedNatural, Natural

MODES = ("allow-smaller", "allow-bigger", "drop-reminder", "strict")


def natural(sources, clients, least, seed=0):
    return deal(Natural(), sources, clients, seed, least)


def grouped(sources, clients, size, mode="allow-smaller", least=1, seed=0):
    return deal(GroupedNatural(size, group_mode=mode), sources, clients, seed, least)


def sources_of(parts, sources):
    return [np.unique(sources[part]).tolist() for part in parts]


@examples(150)
@given(SOURCES, st.integers(1, 10), st.integers(1, 12))
def test_natural_deals_whole_sources(sources, clients, least):
    try:
        parts = natural(sources, clients, least)
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
    assert sources_of(natural(sources, 4, 4), sources) == [[0], [1], [2], [3]]


def test_natural_joins_sources_that_are_too_small():
    sources = np.repeat([0, 1, 2, 3, 4], [5, 1, 1, 6, 2])
    assert sources_of(natural(sources, 2, 4), sources) == [[0], [1, 2, 3, 4]]


def test_natural_with_fewer_clients_gives_the_next_source_to_the_poorest():
    sources = np.repeat([0, 1, 2, 3], [9, 4, 6, 4])
    assert sources_of(natural(sources, 2, 2), sources) == [[0, 3], [1, 2]]


def test_too_many_clients_for_the_sources_is_refused_with_how_many_there_can_be():
    sources = np.repeat([0, 1, 2], [5, 5, 1])
    with pytest.raises(InputError, match=r"clients: got 3; expected at most 2, .*Use clients=2"):
        natural(sources, 3, 4)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_samples_for_the_clients_is_refused(count):
    for partitioner in (Natural(), GroupedNatural(1)):
        with pytest.raises(InputError, match="clients"):
            deal(partitioner, np.zeros(count, dtype=np.int64), 8)


@examples(150)
@given(SOURCES, st.integers(1, 5), st.sampled_from(MODES))
def test_groups_hold_the_given_number_of_whole_sources(sources, size, mode):
    values = np.unique(sources).tolist()
    left = len(values) % size
    if left and mode == "strict":
        with pytest.raises(InputError, match=f"group_size: got {size}; .*divisor of {len(values)}"):
            grouped(sources, 1, size, mode)
        return
    sizes = [size] * (len(values) // size)
    if left and mode == "allow-smaller":
        sizes.append(left)
    elif left and mode == "allow-bigger":
        sizes = [size + left, *sizes[1:]] if sizes else [left]
    if not sizes:
        with pytest.raises(InputError, match="clients: got 1; expected at most 0"):
            grouped(sources, 1, size, mode)
        return
    parts = grouped(sources, len(sizes), size, mode)
    assert_dealt(parts, len(sources), len(sizes))
    held = sources_of(parts, sources)
    assert [len(own) for own in held] == sizes
    kept = values[: len(values) - left] if mode == "drop-reminder" else values
    assert sorted(source for own in held for source in own) == kept
    assert sum(map(len, parts)) == int(np.isin(sources, kept).sum())
    with pytest.raises(InputError, match=rf"at most {len(sizes)}, the groups of {size} values of source"):
        grouped(sources, len(sizes) + 1, size, mode)


def test_groups_are_consecutive_and_small_ones_are_joined():
    sources = np.repeat(np.arange(7), [4, 4, 1, 1, 4, 4, 4])
    assert sources_of(grouped(sources, 4, 2), sources) == [[0, 1], [2, 3], [4, 5], [6]]
    assert sources_of(grouped(sources, 3, 2, "allow-bigger"), sources) == [[0, 1, 6], [2, 3], [4, 5]]
    assert sources_of(grouped(sources, 3, 2, least=4), sources) == [[0, 1], [2, 3, 4, 5], [6]]
    assert sources_of(grouped(sources, 2, 2), sources) == [[0, 1, 6], [2, 3, 4, 5]]


def test_groups_of_one_are_natural_and_nothing_is_drawn():
    sources = np.random.default_rng(3).integers(0, 20, 300)
    assert same(grouped(sources, 9, 1, least=4, seed=1), natural(sources, 9, 4, seed=2))
