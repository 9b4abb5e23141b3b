"""Tests of messages of two thin matrices for each matrix."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.senders import ALL, LAYOUT, SHAPES, Sender, drawn, places_of

from fedtlu_fast.clients.trainer import Blocks
from fedtlu_fast.compression import LowRank
from fedtlu_fast.compression.error_feedback import ERROR
from fedtlu_fast.compression.low_rank import START

RANKS = pytest.mark.parametrize("rank", [1, 2, 3, 50])


def matrices(vector: torch.Tensor) -> dict[str, torch.Tensor]:
    """The matrices and vectors of a change by name."""
    views = LAYOUT.views(vector).items()
    return {
        name: own.reshape(own.shape[0], -1) if own.dim() > 1 and own.numel() else own for name, own in views
    }


@RANKS
def test_matrices_arrive_with_the_rank_and_vectors_whole(rank: int) -> None:
    change = drawn(1)
    arrived = matrices(Sender(LowRank(rank)).send(change))
    for name, own in matrices(change).items():
        if own.dim() < 2 or rank * sum(own.shape) >= own.numel():
            assert torch.equal(arrived[name], own)
        else:
            assert torch.linalg.matrix_rank(arrived[name], rtol=1e-5) == rank


@RANKS
@given(seed=st.integers(0, 2**31), spread=st.sampled_from([1e-12, 1.0, 1e9]))
def test_what_is_lost_is_at_right_angles_to_what_arrives(rank: int, seed: int, spread: float) -> None:
    change = drawn(seed, spread=spread)
    arrived = Sender(LowRank(rank)).send(change)
    for own, got in zip(matrices(change).values(), matrices(arrived).values(), strict=True):
        energy, kept = own.double().square().sum(), got.double().square().sum()
        lost = (own.double() - got).square().sum()
        torch.testing.assert_close(lost + kept, energy, rtol=1e-4, atol=0)


def test_the_same_matrix_is_approximated_better_each_time() -> None:
    change, step = drawn(2), LowRank(2)
    sender, lost = Sender(step), []
    for _ in range(30):
        arrived = sender.send(change)
        lost.append(float(((change - arrived) ** 2).sum()))
        sender.memory[step.name] = {START: sender.memory[step.name][START]}  # as if nothing had been lost
    best = 0.0
    for own in matrices(change).values():
        if own.dim() > 1 and 2 * sum(own.shape) < own.numel():
            best += float((torch.linalg.svdvals(own)[2:] ** 2).sum())
    assert lost[-1] <= 1.02 * best < lost[0]
    assert lost == sorted(lost, reverse=True) or max(lost[10:]) <= lost[0]


def test_blocks_that_are_not_sent_keep_their_factors() -> None:
    sender = Sender(LowRank(1))
    sender.send(drawn(1))
    before = sender.remembered(START).clone()
    sender.send(drawn(2), sent=(0,))  # the first matrix: 5 columns
    after = sender.remembered(START)
    assert torch.equal(after[5:], before[5:])
    assert not torch.equal(after[:5], before[:5])


def test_a_change_of_zero_leaves_factors_that_still_work() -> None:
    sender = Sender(LowRank(1))
    assert not sender.send(torch.zeros(LAYOUT.size)).any()
    arrived = sender.send(drawn(3))
    assert all(own.any() for own in matrices(arrived).values() if own.numel())
    assert torch.isfinite(sender.remembered(ERROR)).all()


@RANKS
@pytest.mark.parametrize("sent", [ALL, (1,), (2,), (0, 3), ()])
def test_the_counted_bytes_are_those_of_the_factors(rank: int, sent: Blocks) -> None:
    mask, count = places_of(sent), 0
    for name, own in LAYOUT.views(mask).items():
        if not own.all():
            continue
        shape = SHAPES[name]
        rows, columns = shape[0], own.numel() // max(1, shape[0])
        thin = min(rank, rows, columns) * (rows + columns)
        count += thin if len(shape) > 1 and thin < own.numel() else own.numel()
    assert Sender(LowRank(rank)).bytes(sent) == 4 * count
