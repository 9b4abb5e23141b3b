"""Robust rules, compared with NumPy on the whole stack, in memory and in a file."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.own_parts import middle, transposed
from support.rules import aggregated
from support.sampling import examples

from fedtlu_fast import InputError
from fedtlu_fast.aggregation import FunctionRule, Mean, Median, Start, TrimmedMean
from fedtlu_fast.aggregation import stack as stack_module


def made(rule, base, clients):
    return aggregated(rule, base, clients, cohort=len(clients) + 2).change


@pytest.mark.parametrize("spill", [False, True])
@pytest.mark.parametrize("clients", [1, 2, 3, 10, 11])
@pytest.mark.parametrize("block", [31, stack_module.BLOCK])
def test_rules_equal_numpy(generator, tmp_path, monkeypatch, clients, spill, block):
    monkeypatch.setattr(stack_module, "BLOCK", block)
    base = torch.randn(17, generator=generator)
    stack = torch.randn(clients, 17, generator=generator)
    place = str(tmp_path) if spill else None
    changes = (stack - base).numpy()
    median = made(Median(place), base, stack)
    assert median.tolist() == np.median(changes.astype("f8"), axis=0).astype("f4").tolist()
    trimmed = made(TrimmedMean(0.2, place), base, stack)
    cut = int(0.2 * clients)
    expected = np.sort(changes, axis=0)[cut : clients - cut].astype("f8").cumsum(axis=0)[-1]
    assert trimmed.tolist() == (expected / (clients - 2 * cut)).astype("f4").tolist()
    assert list(tmp_path.iterdir()) == [], "the file has no name that could be left behind"


def test_no_client_changes_nothing():
    assert made(Median(), torch.ones(4), []).tolist() == [0.0] * 4


def test_one_wild_client_moves_the_mean_and_not_the_median(generator):
    base = torch.zeros(50)
    stack = 0.01 * torch.randn(9, 50, generator=generator)
    stack[4] = 1e6
    assert made(Mean(), base, stack).abs().min() > 1e4
    for rule in (Median(), TrimmedMean(0.2)):
        assert made(rule, base, stack).abs().max() < 0.1


@examples(40)
@given(st.integers(1, 9), st.integers(1, 9), st.data(), st.integers(0, 2**32 - 1))
def test_the_clients_order_does_not_matter(clients, size, data, seed):
    draws = torch.Generator().manual_seed(seed)
    base, stack = torch.randn(size, generator=draws), torch.randn(clients, size, generator=draws)
    order = data.draw(st.permutations(range(clients)))
    for rule in (Median(), TrimmedMean(0.2)):
        assert torch.equal(made(rule, base, stack), made(rule, base, stack[order]))


@examples(40)
@given(st.integers(1, 6), st.floats(-(2.0**127), 2.0**127, width=32), st.integers(0, 2**32 - 1))
def test_a_minority_cannot_move_the_median_out_of_the_honest_clients_range(honest, wild, seed):
    draws = torch.Generator().manual_seed(seed)
    stack = torch.randn(2 * honest - 1, 5, generator=draws)
    stack[honest:] = wild
    median = made(Median(), torch.zeros(5), stack)
    assert (median >= stack[:honest].amin(0)).all()
    assert (median <= stack[:honest].amax(0)).all()


def test_a_function_is_a_rule_and_a_wrong_function_is_named(generator):
    base = torch.randn(7, generator=generator)
    stack = base + torch.randn(5, 7, generator=generator)
    found = made(FunctionRule(middle), base, stack)
    torch.testing.assert_close(found, made(Mean(), base, stack))
    assert made(FunctionRule(middle), base, []).tolist() == [0.0] * 7
    with pytest.raises(InputError, match=r"rule: got \(7, 5\); expected .*a tensor of shape \(7,\)"):
        made(FunctionRule(transposed), base, stack)
    with pytest.raises(InputError, match=r"expected a function that takes \[K, P\] and \[K\]; TypeError"):
        made(FunctionRule(lambda updates: updates), base, stack)


def test_a_function_gets_sample_counts_of_the_updates_dtype(generator):
    base = torch.zeros(7)
    stack = torch.randn(3, 7, generator=generator)
    given = []

    def weighted(updates, weights):
        given.append(weights.tolist())
        return weights @ updates / weights.sum()

    rule = FunctionRule(weighted)
    state = rule.start(Start(base, 3))
    for client, (row, samples) in enumerate(zip(stack, (1, 20, 2**24), strict=True)):
        state = rule.add(state, client, float(samples), row)
    expected = (torch.tensor([1.0, 20.0, 2**24]).double() @ stack.double()) / (21 + 2**24)
    torch.testing.assert_close(rule.finish(state).change, expected.float())
    assert given == [[1.0, 20.0, 2.0**24]]


def test_a_function_may_return_what_numbers_can_be_made_of(generator):
    base = torch.zeros(7)
    stack = torch.randn(5, 7, generator=generator)
    mean = stack.mean(dim=0)
    for returned in (mean.numpy(), mean.numpy().astype("f8"), mean.tolist(), mean.double()):
        found = made(FunctionRule(lambda updates, weights, own=returned: own), base, stack)
        assert (found.dtype, found.tolist()) == (torch.float32, mean.tolist())
    votes = made(FunctionRule(lambda updates, weights: (updates > 0).sum(dim=0)), base, stack)
    assert votes.tolist() == [float(column.gt(0).sum()) for column in stack.T]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, r"got 'NoneType'; expected .*<lambda> to return the change, a tensor of shape \(7,\)"),
        (0.0, r"got \(\); expected .*shape \(7,\)"),
        ([1.0] * 6, r"got \(6,\); expected .*shape \(7,\)"),
        (torch.ones(7, dtype=torch.bool), r"got 'torch.bool'; expected .*real numbers"),
        (torch.ones(7, dtype=torch.complex64), r"got 'torch.complex64'; expected .*real numbers"),
        ([float("nan")] * 2 + [1.0] * 5, r"got '2 of 7 numbers that are NaN.*Look for divisions by 0"),
        ([float("inf")] + [1.0] * 6, r"got '1 of 7 numbers that are NaN or infinite'"),
    ],
)
def test_what_is_no_change_is_refused(returned, message):
    with pytest.raises(InputError, match=message):
        made(FunctionRule(lambda updates, weights: returned), torch.zeros(7), torch.ones(2, 7))
