"""Tests of signs: scaled on each client, or counted as votes on the server."""

from typing import Any

import numpy as np
import pytest
import torch
from support.senders import ALL, LAYOUT, Sender, drawn, places_of

from fedtlu_fast.client_steps import ClientSteps, RoundChange, RunFacts
from fedtlu_fast.clients.trainer import Blocks
from fedtlu_fast.compression import MajorityVote, Sign
from fedtlu_fast.compression.majority import SIZES
from fedtlu_fast.compression.sign import signs
from fedtlu_fast.randomness import generator

COUNTS = [layer.numel for layer in LAYOUT.layers]


def test_signs_arrive_with_the_mean_magnitude_of_their_layer() -> None:
    change = drawn(1)
    arrived = Sender(Sign()).send(change)
    for own, original in zip(arrived.split(COUNTS), change.split(COUNTS), strict=True):
        torch.testing.assert_close(own, original.sign() * original.abs().mean() if len(own) else own)


def test_numbers_that_are_0_get_the_sign_of_a_fair_coin() -> None:
    found = signs(torch.zeros(4000), generator(0, "coins"))
    assert set(found.tolist()) == {-1.0, 1.0}
    assert abs(float(found.mean())) < 5 / 4000**0.5
    assert not Sender(Sign()).send(torch.zeros(LAYOUT.size)).any(), "their magnitude is 0"


@pytest.mark.parametrize("sent", [ALL, (1,), (2,), (0, 3), ()])
@pytest.mark.parametrize(
    ("step", "scaled"), [(Sign(), True), (MajorityVote(), True), (MajorityVote(0.1), False)]
)
def test_the_counted_bytes_are_those_of_packed_bits(step: Any, scaled: bool, sent: Blocks) -> None:
    sender, mask = Sender(step), places_of(sent)
    arrived = sender.send(drawn(3), sent)
    packed = len(np.packbits(arrived[mask].numpy() > 0))
    layers = sum(bool(own.any()) for own in mask.split(COUNTS))
    assert sender.bytes(sent) == packed + (4 * layers if scaled else 0)


class Election:
    """Rounds of some clients whose votes are averaged, as the mean does it."""

    def __init__(self, step: MajorityVote, clients: int = 5) -> None:
        self.params = drawn(9)
        self.steps = ClientSteps([step], RunFacts(LAYOUT, clients=clients))
        self.senders = [
            Sender(step, start=self.params, client=client, clients=clients) for client in range(clients)
        ]

    def held(
        self, changes: list[torch.Tensor], sent: Blocks | None = None, scale: float = 1.0
    ) -> torch.Tensor:
        votes = [sender.update(change, sent) for sender, change in zip(self.senders, changes, strict=False)]
        assert {vote.counts for vote in votes} == {1.0}
        mean = scale * torch.stack([vote.params - self.params for vote in votes]).mean(dim=0)
        cohort = list(range(len(votes)))
        server = self.steps.on_server((self.params, torch.empty(0)), 1, cohort, {})
        news = {client: self.senders[client].memory for client in cohort}
        return server.complete(RoundChange(mean, torch.empty(0)), news).change


@pytest.mark.parametrize("clients", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_the_majority_gives_the_direction_and_a_tie_none(clients: int, scale: float) -> None:
    changes = [drawn(seed) for seed in range(clients)]
    found = Election(MajorityVote(0.01)).held(changes, scale=scale)
    expected = 0.01 * torch.stack([change.sign() for change in changes]).sum(dim=0).sign()
    torch.testing.assert_close(found, expected)


def test_without_a_step_layers_move_by_the_median_magnitude() -> None:
    changes = [drawn(seed, spread=spread) for seed, spread in enumerate([1.0, 2.0, 1e9])]
    found = Election(MajorityVote()).held(changes)
    each = [[float(own.abs().mean()) for own in change.split(COUNTS)] for change in changes]
    for layer, own in enumerate(found.split(COUNTS)):
        if len(own):
            expected = sorted(sizes[layer] for sizes in each)[1]
            torch.testing.assert_close(own.abs(), torch.full_like(own, expected), rtol=1e-4, atol=0)


def test_blocks_that_nobody_sends_do_not_move() -> None:
    election = Election(MajorityVote())
    found = election.held([drawn(1), drawn(2), drawn(3)], sent=(0, 4))
    mask = places_of((0, 4))
    assert not found[~mask].any()
    assert found[mask].any()
    sizes = election.senders[0].remembered(SIZES)
    assert [size > 0 for size in sizes] == [bool(own.any()) for own in mask.split(COUNTS)]
    assert not Election(MajorityVote()).held([drawn(1)], sent=()).any()
