"""Tests that clients send random numbers of their changes, and the length of such messages."""

import pytest
import torch
from support.senders import ALL, LAYOUT, Sender, drawn, places_of

from fedtlu_fast.clients.trainer import Blocks
from fedtlu_fast.compression import RandomK

TIMES = 600


def test_without_error_feedback_the_change_arrives_on_average() -> None:
    change, keep = drawn(1), 0.25
    sender = Sender(RandomK(keep))
    arrived = torch.stack([sender.send(change) for _ in range(TIMES)]).double()
    count = round(keep * LAYOUT.size)
    assert (arrived != 0).sum(dim=1).tolist() == [count] * TIMES
    # Each number is n / k times itself with the chance k / n, whose variance is (n / k - 1) v^2.
    allowed = change.double().abs() * ((LAYOUT.size / count - 1) / TIMES) ** 0.5
    assert ((arrived.mean(dim=0) - change).abs() <= 5.5 * allowed).all()
    assert not sender.memory


def test_with_error_feedback_numbers_arrive_as_they_are_and_the_rest_waits() -> None:
    change, sender = drawn(2), Sender(RandomK(0.1, error_feedback=True))
    first = sender.send(change)
    chosen = first != 0
    assert torch.equal(first[chosen], change[chosen])
    second = sender.send(torch.zeros_like(change))
    waiting = (second != 0) & ~chosen
    assert waiting.any()
    assert torch.equal(second[waiting], change[waiting])


def test_the_positions_differ_by_round_and_client() -> None:
    one, other = Sender(RandomK(0.2)), Sender(RandomK(0.2), client=4)
    found = [sender.send(drawn(1)) != 0 for sender in (one, one, other)]
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("sent", [ALL, (1,), (2,), (0, 3), ()])
@pytest.mark.parametrize("keep", [0.001, 0.5, 1.0])
def test_a_message_has_the_numbers_and_a_seed(keep: float, sent: Blocks) -> None:
    sender = Sender(RandomK(keep))
    count = int((sender.send(drawn(5), sent) != 0).sum())
    every = int(places_of(sent).sum())
    assert count == (min(every, max(1, round(keep * every))))
    assert sender.bytes(sent) == 4 * count + (8 if count < every else 0)
