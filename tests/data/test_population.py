"""Populations: rows of pools, taken by place, for one client and for many side by side."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from support.sampling import examples

from fedtlu_fast.data.population import (
    ArrayPopulation,
    Samples,
    Shares,
    as_tensor,
    digest,
    take_each,
)

SIZE = 40
POOL = (torch.arange(SIZE * 3, dtype=torch.float32).view(SIZE, 3), torch.arange(SIZE) * 7)
OTHER = (POOL[0] + 1000, POOL[1] + 1000)

row_arrays = arrays.arrays(np.int64, st.integers(1, 12), elements=st.integers(0, SIZE - 1))
shapes = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


def places_in(size, shape):
    return arrays.arrays(np.int64, shape, elements=st.integers(0, size - 1))


def expected(pool, rows, places):
    return [part.numpy()[rows[places]] for part in pool]


# --- samples -------------------------------------------------------------------------------------


@examples(100)
@given(st.data(), row_arrays, shapes)
def test_take_gives_the_rows_at_places_of_any_shape(data, rows, shape):
    places = data.draw(places_in(len(rows), shape))
    taken = Samples(POOL, rows).take(places)
    assert [part.dtype for part in taken] == [torch.float32, torch.int64]
    assert taken[0].shape == (*shape, 3)
    assert taken[1].shape == shape
    for part, wanted in zip(taken, expected(POOL, rows, places), strict=True):
        assert np.array_equal(part.numpy(), wanted)


@examples(30)
@given(row_arrays)
def test_all_gives_every_sample_in_the_clients_order(rows):
    held = Samples(POOL, rows)
    assert len(held) == len(rows)
    assert held.all()[1].tolist() == (rows * 7).tolist()


def test_sizes_are_those_of_the_shares():
    shares = Shares.of([np.arange(3), np.arange(0), np.arange(5)])
    population = ArrayPopulation(POOL, shares, shares, POOL, "")
    assert population.sizes().tolist() == [3, 0, 5]


def test_taken_samples_are_copies_of_the_pool():
    before = POOL[0].clone()
    Samples(POOL, np.arange(5)).take(np.arange(5))[0].zero_()
    assert torch.equal(POOL[0], before)


@examples(100)
@given(st.data(), st.integers(1, 5), shapes, st.sampled_from(["shared", "separate", "mixed"]))
def test_take_each_is_take_for_every_client(data, count, shape, kind):
    pools = {"shared": [POOL] * count, "separate": [tuple(p + k for p in POOL) for k in range(count)]}
    pools["mixed"] = [OTHER if k % 2 else POOL for k in range(count)]
    samples = [Samples(pool, data.draw(row_arrays)) for pool in pools[kind]]
    places = np.stack([data.draw(places_in(len(held), shape)) for held in samples])
    taken = take_each(samples, places)
    assert taken[0].shape == (count, *shape, 3)
    for index, held in enumerate(samples):
        for part, wanted in zip(taken, expected(held.pool, held.rows, places[index]), strict=True):
            assert np.array_equal(part[index].numpy(), wanted)


def test_take_each_refuses_places_for_another_number_of_clients():
    samples = [Samples(POOL, np.arange(4)), Samples(POOL, np.arange(4))]
    for pools in (samples, [samples[0], Samples(OTHER, np.arange(4))]):
        with pytest.raises(ValueError, match="zip"):
            take_each(pools, np.zeros((3, 2), np.int64))


# --- shares --------------------------------------------------------------------------------------


@examples(60)
@given(st.lists(arrays.arrays(np.int64, st.integers(0, 6), elements=st.integers(0, 99)), max_size=8))
def test_shares_give_each_client_what_it_was_dealt(parts):
    shares = Shares.of(parts)
    assert len(shares) == len(parts)
    assert (shares.rows.dtype, shares.starts.dtype) == (np.int64, np.int64)
    for client, part in enumerate(parts):
        assert shares[client].tolist() == part.tolist()
    with pytest.raises(IndexError):
        shares[len(parts)]


def test_a_share_is_a_view_and_no_copy():
    shares = Shares.of([np.arange(3), np.arange(3, 9)])
    assert np.shares_memory(shares[1], shares.rows)


# --- populations ---------------------------------------------------------------------------------


@pytest.fixture
def population():
    trained, held = Shares.of([np.arange(5), np.arange(9, 20)]), Shares.of([np.array([7]), np.arange(0)])
    return ArrayPopulation(POOL, trained, held, (POOL[0][30:], POOL[1][30:]), "print")


def test_clients_hold_the_rows_of_their_shares(population):
    assert population.clients == 2
    assert population.train(1).rows.tolist() == list(range(9, 20))
    assert population.held_out(0).all()[1].tolist() == [49]
    assert len(population.held_out(1)) == 0
    assert population.held_out(1).all()[0].shape == (0, 3)
    assert population.train(0).pool is population.train(1).pool, "else nothing can be taken together"


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_to_moves_the_samples_and_leaves_the_index(population, device):
    moved = population.to(device)
    assert type(moved) is type(population)
    assert {part.device.type for part in (*moved.pool, *moved.test)} == {device}
    assert moved.shares is population.shares
    assert moved.own_tests is population.own_tests
    assert moved.fingerprint == "print"


def test_a_read_only_array_becomes_a_tensor_without_a_copy_and_without_a_warning(recwarn):
    array = np.arange(6.0)
    array.setflags(write=False)
    tensor = as_tensor(array)
    assert tensor.data_ptr() == array.ctypes.data
    assert not recwarn


@examples(60)
@given(
    st.lists(arrays.arrays(np.int64, st.integers(0, 3), elements=st.integers(0, 2)), max_size=3),
    st.lists(arrays.arrays(np.int64, st.integers(0, 3), elements=st.integers(0, 2)), max_size=3),
)
def test_different_lists_of_arrays_have_different_digests(one, two):
    same = [part.tolist() for part in one] == [part.tolist() for part in two]
    assert (digest(one) == digest(two)) == same
