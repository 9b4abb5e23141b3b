"""Tests that parts of the user's may draw from the global generators: the same seed gives the same bits."""

import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import fedtlu_fast as ft
from fedtlu_fast.aggregation.rule import Aggregated, StackedRule


@dataclass(frozen=True)
class Noisy(ft.ClientStep):
    def before(self, client, start):
        return start.corrected(0.1 * torch.randn_like(start.params))

    def after(self, client, update):
        return replace(update, params=update.params + np.random.rand() * random.random())  # noqa: NPY002

    def server_half(self, server):
        return Half(torch.rand(1))


class Half(ft.ServerHalf):
    def __init__(self, drawn):
        self.drawn = drawn

    def receive(self, arrival):
        return replace(arrival, weight=arrival.weight * (1 + random.random()))

    def complete(self, aggregated):
        return replace(aggregated, change=aggregated.change * (1 + self.drawn + torch.rand(1)))


@dataclass(frozen=True)
class Rule(StackedRule):
    def add(self, state, client, weight, vector):
        return super().add(state, client, weight, vector + torch.rand(1))

    def finish(self, state):
        return Aggregated(torch.rand_like(state.start.base) * state.stack.row(0))


@dataclass(frozen=True)
class Optimizer(ft.ServerOptimizer):
    def step(self, change, state, offsets, mask):
        return change * torch.rand_like(change), state


@dataclass(frozen=True)
class Drawn(ft.Sampler):
    def draw(self, pool, count):
        return random.sample(range(pool.clients), count)


def scores(change):
    return torch.rand(len(change.layout.blocks))


def held(client):
    return torch.randn(6, 4), torch.randint(3, (6,))


def federation(train=None, **over):
    draws = torch.Generator().manual_seed(0)
    given = train or [(torch.randn(6, 4, generator=draws), torch.arange(6) % 3) for _ in range(6)]
    data = ft.Datasets(given, (torch.ones(3, 4), torch.arange(3)), clients=6)
    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3)), torch.nn.Linear(4, 3))
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    task = ft.SupervisedTask(model, cross_entropy)
    return ft.Federation(task, data, **{"cohort": 3, "keep": 1, "executor": "serial", **over})


@pytest.mark.parametrize(
    "over",
    [
        {"client_steps": [Noisy()]},
        {"client_steps": [Noisy()], "executor": ft.Processes(2)},
        {"aggregation": Rule()},
        {"aggregation": lambda updates, weights: updates[0] * torch.rand(1)},
        {"server_optimizer": Optimizer()},
        {"selection": scores},
        {"settings": {"selection": {"metric": "tests.simulation.test_own_draws:scores"}}},
        {"client_selection": {"selector": scores, "budget": 1}},
        {"settings": {"participation": {"sampler": Drawn()}}},
        {"train": held},
    ],
    ids=[
        "steps",
        "processes",
        "rule",
        "function",
        "optimizer",
        "score",
        "metric",
        "clients",
        "sampler",
        "data",
    ],
)
def test_the_same_seed_gives_the_same_bits(over):
    torch.manual_seed(1)
    first = federation(**over).run(rounds=3).params
    torch.manual_seed(2)
    if "executor" in over:
        over = {**over, "executor": "serial"}
    assert torch.equal(federation(**over).run(rounds=3).params, first)
    if "train" not in over:
        assert not torch.equal(federation(**over, seed=1).run(rounds=3).params, first)


def test_draws_differ_between_rounds_and_clients_and_the_caller_keeps_its_own():
    found = []

    @dataclass(frozen=True)
    class Seen(ft.ClientStep):
        def after(self, client, update):
            found.append((client.round, client.number, torch.rand(1).item()))
            return update

    made = federation(client_steps=[Seen()])
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    made.run(rounds=2)
    assert torch.equal(torch.rand(1), expected)
    assert len({draw for *_, draw in found}) == len(found) == 6
