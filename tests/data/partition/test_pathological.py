from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.partitions import SOURCES, assert_dealt, deal, same
from support.sampling import examples

from fedtlu_fast import InputError
from fedtlu_fast.data.partition import Pathological

MODES = ("random", "deterministic", "first-deterministic")


def pathological(sources, clients, classes, mode="random", seed=0, least=1):
    return deal(Pathological(classes, class_assignment_mode=mode), sources, clients, seed, least)


def classes_of(parts, sources):
    return [sorted(set(sources[part].tolist())) for part in parts]


@examples(150)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(1, 6), st.sampled_from(MODES), st.integers(0, 9))
def test_every_client_has_the_given_number_of_values_and_holders_share_equally(
    clients, values, classes, mode, seed
):
    sources = np.repeat(np.arange(values) * 3, 25)  # codes need not be consecutive
    if classes > values:
        with pytest.raises(InputError, match=f"num_classes_per_partition: got {classes}; .* most {values}"):
            pathological(sources, clients, classes, mode, seed)
        return
    parts = pathological(sources, clients, classes, mode, seed)
    assert_dealt(parts, len(sources), clients, least=1)
    held = classes_of(parts, sources)
    assert all(len(own) == classes for own in held)
    for value in {value for own in held for value in own}:
        counts = [
            int((sources[part] == value).sum()) for part, own in zip(parts, held, strict=True) if value in own
        ]
        assert sum(counts) == 25, "a value that anyone holds is dealt whole"
        assert max(counts) - min(counts) <= 1


def test_deterministic_modes_assign_values_in_order():
    sources = np.repeat(np.arange(4), 20)
    held = classes_of(pathological(sources, 5, 2, "deterministic"), sources)
    assert held == [[0, 1], [1, 2], [2, 3], [0, 3], [0, 1]]
    for seed in range(20):
        first = classes_of(pathological(sources, 4, 2, "first-deterministic", seed), sources)
        assert all(client in own for client, own in enumerate(first))
    one = classes_of(pathological(sources, 4, 1, "first-deterministic"), sources)
    assert one == [[0], [1], [2], [3]]


@pytest.mark.parametrize("mode", ["random", "first-deterministic"])
def test_values_are_drawn_uniformly(mode):
    sources = np.repeat(np.arange(5), 8)
    drawn = Counter(
        tuple(classes_of(pathological(sources, 1, 2, mode, seed), sources)[0]) for seed in range(1000)
    )
    # random: 10 pairs, 100 +- 9.5 each; first-deterministic: 4 pairs with class 0, 250 +- 14; five of them.
    pairs, spread = (10, 48) if mode == "random" else (4, 69)
    assert len(drawn) == pairs
    assert all(abs(count - 1000 / pairs) < spread for count in drawn.values())


@examples(150)
@given(SOURCES, st.integers(1, 15), st.integers(1, 3), st.integers(1, 6), st.sampled_from(MODES))
def test_each_client_gets_enough_of_values_of_any_size_or_an_error(sources, clients, classes, least, mode):
    try:
        parts = pathological(sources, clients, classes, mode, least=least)
    except InputError as error:
        assert error.field in ("clients", "num_classes_per_partition")  # noqa: PT017
        each = -(-least // classes)
        room = np.bincount(sources) // each
        # If every value has enough samples for every client, no error is possible.
        assert (room[np.unique(sources)] < clients).any() or classes > len(np.unique(sources))
        return
    assert_dealt(parts, len(sources), clients, least)
    assert all(len(own) == classes for own in classes_of(parts, sources))


def test_small_values_have_as_many_holders_as_they_can_serve():
    sources = np.repeat(np.arange(12), [200, 200, *[2] * 10])
    for seed in range(20):
        held = classes_of(pathological(sources, 30, 2, seed=seed, least=4), sources)
        counts = Counter(value for own in held for value in own)
        assert all(counts[value] <= 1 for value in range(2, 12))


@pytest.mark.parametrize(("mode", "most"), [("random", 3), ("deterministic", 3), ("first-deterministic", 3)])
def test_too_many_clients_for_a_value_is_refused_with_how_many_there_can_be(mode, most):
    sources = np.repeat([0, 1], [50, 3])
    assert len(pathological(sources, most, 2, mode)) == most
    with pytest.raises(InputError, match=rf"clients: got 4; expected at most {most}: .*each of 2 values"):
        pathological(sources, 4, 2, mode)


def test_the_same_seed_deals_the_same():
    sources = np.repeat(np.arange(8), 10)
    first, again, other = (pathological(sources, 5, 3, seed=seed) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)
