import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.partitions import SOURCES, assert_deals_everything_once, deal, heterogeneity, same
from support.sampling import examples

from fedtlu_fast import InputError
from fedtlu_fast.data.partition import Exponential, Linear, Square

KINDS = (Linear, Square, Exponential)


def sizes_of(partitioner, samples, clients, least=1):
    return [len(part) for part in deal(partitioner, np.zeros(samples, dtype=np.int64), clients, least=least)]


@examples(150)
@given(SOURCES, st.integers(1, 30), st.integers(0, 6), st.sampled_from(KINDS), st.integers(0, 9))
def test_everything_is_dealt_sizes_ascend_and_keep_the_minimum(sources, clients, least, kind, seed):
    if clients * least > len(sources):
        with pytest.raises(InputError, match="clients: got"):
            deal(kind(), sources, clients, seed, least)
        return
    parts = deal(kind(), sources, clients, seed, least)
    assert_deals_everything_once(parts, sources, clients, least)
    sizes = [len(part) for part in parts]
    assert sizes == sorted(sizes)


def test_sizes_are_proportional_to_their_formula():
    assert sizes_of(Linear(), 1000, 4) == [100, 200, 300, 400]
    assert sizes_of(Square(), 3000, 4) == [100, 400, 900, 1600]
    exponential = sizes_of(Exponential(), 100_000, 4)
    assert np.diff(np.log(exponential)) == pytest.approx([1, 1, 1], rel=1e-3)


def test_rounding_moves_no_client_by_more_than_one():
    sizes = np.array(sizes_of(Linear(), 50_000, 300))
    exact = np.arange(1, 301) * 50_000 / (300 * 301 / 2)
    assert np.abs(sizes - exact).max() < 1


def test_clients_above_the_minimum_share_the_rest_by_the_rule():
    assert sizes_of(Linear(), 1000, 4, 150) == [150, 189, 283, 378]
    assert sizes_of(Exponential(), 3000, 1000, 2)[:990] == [2] * 990


def test_clients_are_alike_but_for_their_sizes():
    sources = np.repeat(np.arange(5), 4000)
    assert heterogeneity(deal(Linear(), sources, 10, least=300), sources) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_deals_the_same(kind):
    sources = np.repeat(np.arange(8), 10)
    first, again, other = (deal(kind(), sources, 5, seed) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)
