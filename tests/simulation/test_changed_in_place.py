"""Tests that a part that changes in place what others read too is refused with its name."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

import fedtlu_fast as ft
from fedtlu_fast.aggregation.rule import Aggregated, StackedRule
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.errors import ClientError, InputError
from tests.simulation.test_failing_parts import SYNTHETIC


@dataclass(frozen=True)
class Step(ft.ClientStep):
    """A step that spoils something in one of its hooks."""

    hook: str
    spoil: Callable[[Any], object]

    def before(self, client, start):
        if self.hook == "before":
            self.spoil(start)
        return start

    def after(self, client, update):
        if self.hook == "after":
            self.spoil(client)
        return replace(update, memory={"a": np.ones(2)})

    def server_half(self, server):
        if self.hook == "server_half":
            self.spoil(server)
        return Half(server, self.spoil if self.hook == "receive" else None)


class Half(ft.ServerHalf):
    def __init__(self, server, spoil):
        self._server, self._spoil = server, spoil

    def receive(self, arrival):
        if self._spoil is not None:
            self._spoil(self._server)
        return arrival


class Rule(StackedRule):
    def finish(self, state):
        state.start.base.add_(1)
        return Aggregated(torch.zeros_like(state.start.base))


@dataclass(frozen=True)
class Optimizer(ft.ServerOptimizer):
    spoil: Callable[[torch.Tensor, torch.Tensor], object]

    def step(self, change, state, offsets, mask):
        self.spoil(offsets, mask)
        return change, state


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"client_steps": [Step("after", lambda c: c.params.add_(0.1))]}, r"Step\.after.* client\.params in"),
        (
            {"client_steps": [Step("after", lambda c: c.start.buffers.add_(0.1))]},
            r"Step\.after.* client\.buffers in",
        ),
        (
            {"client_steps": [Step("before", lambda s: s.samples.pool[0].mul_(1.5))]},
            r"Step\.before.* start\.samples\.pool\[0\] in",
        ),
        (
            {"client_steps": [Step("receive", lambda s: s.params.add_(1))]},
            r"Half\.receive.* server\.params",
        ),
        (
            {"client_steps": [Step("server_half", lambda s: s.params.add_(1))]},
            r"Step\.server_half.* server\.params in",
        ),
        ({"aggregation": {"rule": Rule()}}, r"Rule\.finish.* start\.base in"),
        (
            {"aggregation": {"server_optimizer": Optimizer(lambda offsets, mask: mask.fill_(True))}},
            r"Optimizer\.step.* mask in",
        ),
        (
            {"aggregation": {"server_optimizer": Optimizer(lambda offsets, mask: offsets.zero_())}},
            r"Optimizer\.step.* offsets in",
        ),
    ],
)
def test_a_change_in_place_is_refused_with_the_part_and_the_tensor(over, message):
    with pytest.raises((InputError, ClientError), match=message):
        ft.simulate(parse_config({**SYNTHETIC, **over}))


def _write(client):
    client.memory.get("a", np.zeros(2))[:] = 1


def test_arrays_that_a_step_remembers_are_read_only():
    over = {"rounds": 2, "cohort": 4, "client_steps": [Step("after", _write)]}
    with pytest.raises(ClientError, match=r"in round 2: ValueError: .*read-only"):
        ft.simulate(parse_config({**SYNTHETIC, **over}))


class SpoilsLayout(ft.Callback):
    def on_round_end(self, run):
        run.layout.offsets.zero_()


def test_a_callback_cannot_change_the_layout():
    with pytest.raises(InputError, match=r"SpoilsLayout\.on_round_end.* run\.layout\.offsets in place"):
        ft.simulate(parse_config(SYNTHETIC), callbacks=[SpoilsLayout()])
