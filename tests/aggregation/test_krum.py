"""Krum and Multi-Krum, compared with the paper's definition in NumPy float64; the influence of a minority."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.rules import aggregated
from support.sampling import examples

from fedtlu_fast.aggregation import BuffersMean, Krum, MultiKrum, Start
from fedtlu_fast.aggregation import krum as krum_module
from fedtlu_fast.aggregation import stack as stack_module
from fedtlu_fast.aggregation.krum import decided, krum_scores, lowest, squared_distances
from fedtlu_fast.aggregation.stack import Stack


def by_definition(clients, tolerated, size):
    """Returns the places of the `size` clients with the lowest scores, by the paper's definition."""
    vectors = clients.double().numpy()
    scores = []
    for place, own in enumerate(vectors):
        others = [((own - other) ** 2).sum() for index, other in enumerate(vectors) if index != place]
        scores.append(sum(sorted(others)[: len(vectors) - tolerated - 2]))
    return sorted(sorted(range(len(scores)), key=lambda place: scores[place])[:size])


def krum(byzantine, kept=1, spill=None):
    if kept == 1:
        return Krum(byzantine, spill)
    return MultiKrum(byzantine, spill, kept)


@pytest.mark.parametrize("spill", [False, True])
@pytest.mark.parametrize(("clients", "tolerated"), [(3, 0), (5, 1), (10, 0), (10, 3), (11, 4)])
@pytest.mark.parametrize("block", [31, stack_module.BLOCK])
def test_equals_the_paper_s_definition(
    generator, tmp_path, monkeypatch, backend, backend_device, clients, tolerated, spill, block
):
    if backend == "triton" and backend_device == "cpu" and (clients > 5 or spill):
        pytest.skip("Triton's interpreter takes seconds; smaller cohorts run there")
    monkeypatch.setattr(stack_module, "BLOCK", block)
    base = torch.randn(17, generator=generator)
    stack = base + torch.randn(clients, 17, generator=generator)
    stack[0] += 30  # a client far away from the others
    place = str(tmp_path) if spill else None
    start = base.to(backend_device)
    for size in (1, 2, clients - tolerated, None):
        own = by_definition(stack, tolerated, size or clients - tolerated)
        rule = aggregated(krum(tolerated, size, place), start, stack.to(backend_device), backend=backend)
        assert rule.kept == own
        expected = (stack[own].double() - base.double()).mean(dim=0)
        torch.testing.assert_close(rule.change.cpu().double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(base, start.cpu())


def test_krums_change_is_one_clients_to_the_bit(generator):
    base = torch.randn(50, generator=generator)
    stack = base + torch.randn(7, 50, generator=generator)
    rule = aggregated(krum(2), base, stack)
    (place,) = rule.kept
    assert torch.equal(rule.change, stack[place] - base)
    assert torch.equal(rule.change, rule.change)


def test_distances_keep_digits_that_the_gram_matrix_loses(generator):
    """Makes two clients of one attack, far away and nearly equal, and honest clients."""
    wild = 1e3 * torch.randn(400, generator=generator)
    stack = Stack(torch.zeros(400), 4)
    vectors = [
        *(1e-2 * torch.randn(400, generator=generator) for _ in range(2)),
        wild,
        wild + 1e-4 * torch.randn(400, generator=generator),
    ]
    for vector in vectors:
        stack.add_(vector)
    exact = [
        [
            math.fsum((a - b) ** 2 for a, b in zip(one.tolist(), other.tolist(), strict=True))
            for other in vectors
        ]
        for one in vectors
    ]
    found = squared_distances(stack)
    assert torch.equal(found, found.T)
    np.testing.assert_allclose(found.numpy(), exact, rtol=1e-13)


def test_scores_leave_out_the_client_itself_and_the_farthest():
    distances = torch.tensor(
        [[0, 1, 4, 100], [1, 0, 2, 100], [4, 2, 0, 100], [100, 100, 100, 0]], dtype=torch.float64
    )
    assert krum_scores(distances, 0).tolist() == [5, 3, 6, 200]
    assert krum_scores(distances, 1).tolist() == [1, 1, 2, 100]


@pytest.mark.parametrize("arrived", [0, 1, 4, 8])
@pytest.mark.parametrize("kept", [1, 3, None])
def test_if_too_few_clients_arrive_none_is_kept_and_nothing_changes(generator, arrived, kept):
    """3 of 10 may be malicious; 8 clients are not more than 2 f + 2, and the missing ones may be honest."""
    stack = torch.randn(arrived, 6, generator=generator)
    rule = aggregated(krum(0.3, kept), torch.ones(6), stack, cohort=10)
    assert rule.kept == []
    assert rule.change.tolist() == [0.0] * 6
    assert aggregated(krum(0.3, kept), torch.ones(6), torch.randn(9, 6), cohort=10).kept != []


def test_multi_krum_keeps_f_fewer_than_arrived_by_default(generator):
    stack = torch.randn(9, 6, generator=generator)
    rule = aggregated(MultiKrum(2), torch.zeros(6), stack, cohort=11)
    assert len(rule.kept) == 7
    rule = aggregated(krum(2, 11), torch.zeros(6), stack, cohort=11)
    assert rule.kept == list(range(9)), "of those that were to be kept, all that arrived"


def test_identical_clients_tie_and_the_first_in_the_cohort_win(generator):
    one = torch.randn(3000, generator=generator)
    assert aggregated(krum(1), torch.zeros(3000), one.expand(7, -1)).kept == [0]
    assert aggregated(krum(1, 3), torch.zeros(3000), one.expand(7, -1)).kept == [0, 1, 2]
    # Two equal clients have the same score to the bit, whatever their places.
    stack = 1e-3 * torch.randn(9, 3000, generator=generator)
    stack[5] = stack[7] = one * 0
    assert aggregated(krum(2), torch.zeros(3000), stack).kept == [5]
    assert aggregated(krum(2), torch.zeros(3000), stack.flip(0)).kept == [1]


def held(rows):
    stack = Stack(torch.zeros(rows.shape[1]), len(rows))
    for row in rows:
        stack.add_(row)
    return stack


def near_ties(generator):
    """Clients at nearly equal distances: closer than float32 tells apart, or equal to the bit."""
    corners = torch.eye(16, 40)
    wobble = torch.randint(-1, 2, (16, 40), generator=generator) * 2.0**-23
    return torch.cat([corners[:4], (corners * (1 + wobble))[4:], corners[:2]])


CROWDS = {
    "usual": lambda g: torch.randn(18, 40, generator=g),
    "near ties": near_ties,
    "identical": lambda g: torch.randn(1, 40, generator=g).expand(18, -1),
    "two points": lambda g: torch.randn(2, 40, generator=g)[torch.randint(0, 2, (18,), generator=g)],
    "far away": lambda g: torch.randn(18, 40, generator=g) * torch.logspace(-25, 37, 18)[:, None],
    "overflowing": lambda g: 1e21 * torch.randn(18, 40, generator=g),
    "few overflow": lambda g: torch.cat(
        [torch.randn(9, 40, generator=g), 1e21 * torch.randn(9, 40, generator=g)]
    ),
    "underflowing": lambda g: 1e-24 * torch.randn(18, 40, generator=g),
    "not numbers": lambda g: torch.randn(18, 40, generator=g).index_fill(0, torch.arange(9, 14), torch.nan),
    "infinite": lambda g: torch.randn(18, 40, generator=g).index_fill(0, torch.arange(3, 12), torch.inf),
}


@pytest.mark.parametrize("crowd", CROWDS)
def test_the_choice_is_always_that_of_the_float64_distances(generator, monkeypatch, crowd):
    monkeypatch.setattr(stack_module, "BLOCK", 18 * 17)
    for _ in range(4):
        stack = held(CROWDS[crowd](generator))
        for tolerated in (0, 1, 5, 7):
            scores = krum_scores(squared_distances(stack), tolerated)
            order = scores.sort(stable=True).indices
            for size in (1, 2, 9, 17, 18):
                assert lowest(stack, tolerated, size) == sorted(order[:size].tolist())


def test_float64_distances_are_computed_for_undecided_clients_only(generator, monkeypatch, backend):
    if backend == "triton":
        pytest.skip("its bounds are the distances")
    asked = []

    def counted(stack, backend, chosen):
        asked.append(chosen)
        return squared_distances(stack, backend, chosen)

    monkeypatch.setattr(krum_module, "squared_distances", counted)
    rows = torch.randn(20, 3000, generator=generator)
    stack = held(rows)
    for size in (1, 7, 20):
        lowest(stack, 4, size, backend)
    assert asked == []
    first = lowest(stack, 4, 1, backend)[0]
    lowest(held(torch.cat([rows, rows[first : first + 1]])), 4, 1, backend)
    assert asked == [[first, 20]]


def test_what_bounds_decide():
    def of(lower, upper, size):
        return decided(torch.tensor(lower).double(), torch.tensor(upper).double(), size)

    nan, inf = math.nan, math.inf
    assert of([1, 3, 5], [2, 4, 6], 1) == ([0], [])
    assert of([1, 2, 5], [2, 4, 6], 1) == ([], [0, 1])
    assert of([1, 2, 5], [2, 4, 6], 2) == ([0, 1], [])
    assert of([1, 1, 1], [1, 1, 1], 2) == ([], [0, 1, 2])
    assert of([nan, 3, 5], [nan, inf, 6], 1) == ([], [1, 2])
    assert of([nan, 3, 5], [nan, inf, 6], 2) == ([2], [0, 1])
    assert of([nan, 3, nan], [nan, 4, nan], 3) == ([0, 1, 2], [])


def test_any_finite_client_has_finite_distances():
    largest = torch.finfo(torch.float32).max
    stack = torch.cat([torch.ones(6, 4), torch.full((1, 4), largest), torch.full((1, 4), -largest)])
    rule = aggregated(krum(2, None), torch.zeros(4), stack)
    assert rule.kept == [0, 1, 2, 3, 4, 5]
    assert rule.change.tolist() == [1.0] * 4


@examples(40)
@given(st.integers(3, 9), st.data(), st.integers(0, 2**32 - 1))
def test_the_clients_order_matters_for_ties_only(clients, data, seed):
    """Random clients can tie: with n - f - 2 = 1, clients that are each other's nearest have equal scores."""
    stack = torch.randn(clients, 6, generator=torch.Generator().manual_seed(seed))
    tolerated = data.draw(st.integers(0, (clients - 3) // 2))
    size = data.draw(st.integers(1, clients))
    order = data.draw(st.permutations(range(clients)))
    one = aggregated(krum(tolerated, size), torch.zeros(6), stack)
    other = aggregated(krum(tolerated, size), torch.zeros(6), stack[order])
    again = sorted(order[place] for place in other.kept)
    scores = krum_scores(squared_distances(held(stack)), tolerated)
    assert sorted(scores[again].tolist()) == sorted(scores[one.kept].tolist())
    if len(scores.unique()) == clients:
        assert again == one.kept
        torch.testing.assert_close(other.change, one.change, rtol=1e-5, atol=1e-6)


WILD = st.floats(-(2.0**127), 2.0**127, width=32)


@examples(60)
@given(st.integers(1, 3), st.integers(0, 3), st.data(), st.integers(0, 2**32 - 1))
def test_a_minority_of_arbitrary_vectors_stays_close_to_honest_clients(tolerated, more, data, seed):
    """A kept client is near an honest client, compared with the distances between honest clients.

    An honest client's n - f - 2 nearest others are at most D away, the honest clients' diameter, so its
    score is (n - f - 2) D^2 at most; there are n - f of them, so that bounds all that are kept. Of the
    n - f - 2 nearest of a malicious client, at least n - 2 f - 1 are honest.
    """
    clients = 2 * tolerated + 3 + more
    honest = torch.randn(clients - tolerated, 4, generator=torch.Generator().manual_seed(seed))
    wild = data.draw(st.lists(st.lists(WILD, min_size=4, max_size=4), min_size=tolerated, max_size=tolerated))
    stack = torch.cat([honest, torch.tensor(wild)])[data.draw(st.permutations(range(clients)))]
    diameter = float(torch.pdist(honest.double()).max())
    near = clients - tolerated - 2
    bound = diameter * math.sqrt(near / (clients - 2 * tolerated - 1))
    for rule in (krum(tolerated), MultiKrum(tolerated)):
        for place in aggregated(rule, torch.zeros(4), stack).kept:
            away = (honest.double() - stack[place].double()).norm(dim=1).min()
            assert away <= bound * (1 + 1e-9)


def test_one_wild_client_has_no_influence(generator):
    stack = 0.01 * torch.randn(9, 50, generator=generator)
    stack[4] = 1e6
    for config in (krum(1), krum(1, 5), MultiKrum(1)):
        rule = aggregated(config, torch.zeros(50), stack)
        assert 4 not in rule.kept
        assert rule.change.abs().max() < 0.1


def test_buffers_are_averaged_over_the_same_clients(generator):
    base, buffers = torch.randn(20, generator=generator), torch.randn(3, generator=generator)
    clients = base + torch.randn(6, 20, generator=generator)
    own = buffers + torch.randn(6, 3, generator=generator)
    kept = aggregated(krum(1, 2), base, clients).kept
    beside = BuffersMean(buffers, 6, chooses=True)
    for statistics in own:
        beside.add_(statistics, 5)
    assert len(kept) == 2
    torch.testing.assert_close(beside.change(kept), own[kept].mean(dim=0) - buffers)
    without = BuffersMean(torch.empty(0), 6, chooses=True)
    without.add_(torch.empty(0), 5)
    assert without.change([0]).shape == (0,)


def test_a_sum_of_clients_is_refused():
    rule = krum(1)
    assert not rule.takes_sums
    with pytest.raises(NotImplementedError, match="Krum needs the vector of every client"):
        rule.add_sum(rule.start(Start(torch.zeros(3), 5)), 5, torch.zeros(3))
