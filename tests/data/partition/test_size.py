import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.partitions import SOURCES, assert_deals_everything_once, deal, heterogeneity, same
from support.sampling import examples

from fedtlu_fast import InputError
from fedtlu_fast.data.partition import ExponentialPartitioner, LinearPartitioner, SquarePartitioner

KINDS = (LinearPartitioner, SquarePartitioner, ExponentialPartitioner)


def sizes_of(partitioner, samples, seed=0):
    return [len(part) for part in deal(partitioner, np.zeros(samples, dtype=np.int64), seed)]


@examples(150)
@given(SOURCES, st.integers(1, 30), st.integers(0, 6), st.sampled_from(KINDS), st.integers(0, 9))
def test_everything_is_dealt_sizes_ascend_and_keep_the_minimum(sources, clients, least, kind, seed):
    if clients * least > len(sources):
        with pytest.raises(InputError, match="clients: got"):
            deal(kind(clients, least), sources, seed)
        return
    parts = deal(kind(clients, least), sources, seed)
    assert_deals_everything_once(parts, sources, clients, least)
    sizes = [len(part) for part in parts]
    assert sizes == sorted(sizes)


def test_sizes_are_proportional_to_what_they_are_named_after():
    assert sizes_of(LinearPartitioner(4), 1000) == [100, 200, 300, 400]
    assert sizes_of(SquarePartitioner(4), 3000) == [100, 400, 900, 1600]
    exponential = sizes_of(ExponentialPartitioner(4), 100_000)
    assert np.diff(np.log(exponential)) == pytest.approx([1, 1, 1], rel=1e-3)


def test_rounding_moves_no_client_by_more_than_one():
    sizes = np.array(sizes_of(LinearPartitioner(300), 50_000))
    exact = np.arange(1, 301) * 50_000 / (300 * 301 / 2)
    assert np.abs(sizes - exact).max() < 1


def test_those_above_the_minimum_share_the_rest_by_the_rule():
    assert sizes_of(LinearPartitioner(4, 150), 1000) == [150, 189, 283, 378]
    assert sizes_of(ExponentialPartitioner(1000, 2), 3000)[:990] == [2] * 990


def test_clients_are_alike_but_for_their_sizes():
    sources = np.repeat(np.arange(5), 4000)
    assert heterogeneity(deal(LinearPartitioner(10, 300), sources), sources) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_deals_the_same(kind):
    sources = np.repeat(np.arange(8), 10)
    first, again, other = (deal(kind(5), sources, seed) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)
