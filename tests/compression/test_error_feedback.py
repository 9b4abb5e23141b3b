"""Tests of what clients keep of a change that they could not send."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.senders import ALL, LAYOUT, Sender, drawn, places_of

from fedtlu_fast.client_steps import ClientStep
from fedtlu_fast.client_steps.threats import SignFlip
from fedtlu_fast.compression import LowRank, RandomK, Sign, TopK
from fedtlu_fast.compression.error_feedback import ERROR

STEPS: list[ClientStep] = [
    TopK(0.05),
    TopK(0.1, by_layer=True),
    RandomK(0.1, error_feedback=True),
    Sign(),
    LowRank(1),
]
FED_BACK = pytest.mark.parametrize("step", STEPS, ids=str)


@FED_BACK
@given(seed=st.integers(0, 2**31), spread=st.sampled_from([1e-6, 1.0, 1e6]))
def test_what_was_sent_and_the_error_add_up_to_all_changes(step: Any, seed: int, spread: float) -> None:
    sender = Sender(step, start=drawn(seed + 1, spread=0.1))
    arrived, changed = torch.zeros(LAYOUT.size).double(), torch.zeros(LAYOUT.size).double()
    for index in range(4):
        change = drawn(seed + index, spread=spread)
        changed += ((sender.params + change) - sender.params).double()
        arrived += sender.send(change).double()
    error = sender.remembered(ERROR).double()
    # Each round rounds one float32 sum; nothing is lost by the compression itself.
    torch.testing.assert_close(arrived + error, changed, rtol=0, atol=1e-5 * max(spread, 1e-3))


@FED_BACK
def test_blocks_that_are_not_sent_stay_as_they_are_and_keep_their_error(step: Any) -> None:
    sender = Sender(step, start=drawn(7))
    sender.send(drawn(1))
    before, sent = sender.remembered(ERROR).clone(), (0, 4)
    update = sender.update(drawn(2), sent)
    others = ~places_of(sent)
    assert update.sent == sent
    assert torch.equal(update.params[others].view(torch.int32), sender.params[others].view(torch.int32))
    assert torch.equal(sender.remembered(ERROR)[others], before[others])
    assert before[others].any()
    assert not torch.equal(sender.remembered(ERROR), before)


@FED_BACK
def test_the_error_of_a_chosen_block_adds_up_over_its_rounds(step: Any) -> None:
    sender, sent_in = Sender(step), [ALL, (1, 3), (0, 4), (), (3,), None]
    arrived, changed = torch.zeros(LAYOUT.size), torch.zeros(LAYOUT.size)
    for index, sent in enumerate(sent_in):
        change = drawn(index)
        changed += torch.where(places_of(ALL if sent is None else sent), change, 0)
        arrived += sender.send(change, sent)
    torch.testing.assert_close(arrived + sender.remembered(ERROR), changed, rtol=0, atol=1e-5)


@FED_BACK
@pytest.mark.parametrize("wrong", [math.nan, math.inf, 1e30])
def test_a_client_that_will_be_refused_keeps_its_memory(step: Any, wrong: float) -> None:
    sender = Sender(step)
    sender.send(drawn(1))
    before = {name: dict(held) for name, held in sender.memory.items()}
    spoilt = drawn(2)
    spoilt[5] = wrong
    assert not sender.update(spoilt).is_sound(torch.zeros(2))
    assert not sender.update(drawn(3), loss=math.nan).is_sound(torch.zeros(2))
    assert sender.memory.keys() == before.keys()
    for name, held in sender.memory.items():
        assert all((held[key] == value).all() for key, value in before[name].items())


@FED_BACK
def test_an_error_that_would_be_too_large_is_not_kept(step: Any) -> None:
    sender, largest = Sender(step), 2.0**59.9
    for _ in range(3):  # 1.5 times the largest number that is accepted is sent in the second round
        update = sender.update(torch.full((LAYOUT.size,), largest))
    assert torch.isfinite(sender.remembered(ERROR)).all()
    assert update.params.shape == (LAYOUT.size,)


@FED_BACK
def test_the_same_round_gives_the_same_bits(step: Any) -> None:
    one, other = Sender(step), Sender(step)
    for index in range(3):
        first, second = one.send(drawn(index)), other.send(drawn(index))
        assert torch.equal(first.view(torch.int32), second.view(torch.int32))


@FED_BACK
def test_a_malicious_client_sends_compressed_messages_too(step: Any) -> None:
    faking = Sender(SignFlip(1.0), step)
    honest = Sender(step)
    change = drawn(4)
    torch.testing.assert_close(faking.send(change), honest.send(-change), rtol=1e-6, atol=1e-6)
