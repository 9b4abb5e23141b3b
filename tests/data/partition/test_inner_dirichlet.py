import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.partitions import SOURCES, assert_dealt, deal, heterogeneity, same
from support.sampling import examples

from fedtlu_fast import InputError
from fedtlu_fast.data.partition import InnerDirichlet
from fedtlu_fast.data.partition.inner_dirichlet import equal_sizes


def inner(sources, sizes, alpha, seed=0):
    return deal(InnerDirichlet(alpha, partition_sizes=tuple(sizes)), sources, len(sizes), seed)


@examples(200)
@given(
    SOURCES,
    st.lists(st.integers(2, 12), min_size=1, max_size=20),
    st.sampled_from([1e-300, 0.01, 1.0, 1e38]),
    st.integers(0, 99),
)
def test_every_client_gets_its_size_and_no_sample_goes_twice(sources, sizes, alpha, seed):
    if sum(sizes) > len(sources):
        with pytest.raises(InputError, match=f"partition_sizes: got {sum(sizes)}; .* {len(sources)}, the"):
            inner(sources, sizes, alpha, seed)
        return
    parts = inner(sources, sizes, alpha, seed)
    assert_dealt(parts, len(sources), len(sizes))
    assert [len(part) for part in parts] == sizes


@given(st.integers(0, 500), st.integers(1, 40))
def test_equal_sizes_leave_nothing_over(samples, clients):
    sizes = equal_sizes(samples, clients)
    assert (len(sizes), sum(sizes)) == (clients, samples)
    assert max(sizes) - min(sizes) <= 1


def test_small_alpha_is_far_from_iid_and_large_alpha_near():
    sources = np.repeat(np.arange(10), 200)
    distances = [
        heterogeneity(inner(sources, equal_sizes(1500, 20), alpha), sources)
        for alpha in (0.01, 0.1, 1.0, 1000.0)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.7
    assert distances[-1] < 0.15


def test_with_plenty_of_samples_clients_have_their_proportions():
    """With far more samples than clients take, each client's shares are a draw from Dirichlet(alpha)."""
    sources = np.repeat(np.arange(4), 10_000)
    shares = []
    for seed in range(100):
        for part in inner(sources, [500, 500], 1.0, seed):
            shares.append(np.bincount(sources[part], minlength=4) / 500)
    # Dirichlet(1, 1, 1, 1): mean 1/4, variance 3/80; 200 draws: standard errors 0.0137 and about 11%.
    assert np.abs(np.mean(shares, axis=0) - 0.25).max() < 0.07
    assert np.var(shares, axis=0).mean() == pytest.approx(3 / 80, rel=0.3)


def test_the_same_seed_deals_the_same():
    sources = np.repeat(np.arange(8), 10)
    first, again, other = (inner(sources, [16] * 5, 0.3, seed) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


def test_default_sizes_are_equal_and_given_sizes_must_match_the_clients():
    sources = np.repeat(np.arange(5), 4)
    assert [len(part) for part in deal(InnerDirichlet(), sources, 3)] == [7, 7, 6]
    with pytest.raises(InputError, match=r"partition_sizes: got '2 sizes'; expected one for each of the 3"):
        deal(InnerDirichlet(partition_sizes=(3, 2)), sources, 3)
