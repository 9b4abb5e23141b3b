"""A user's optimizer has to train all parameters of a client, and no others."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import fedtlu_fast as ft
from fedtlu_fast.clients.optimizer import Optimizer, Sgd
from fedtlu_fast.errors import ClientError

MODEL = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
SAMPLES = torch.linspace(-1, 1, 32).reshape(8, 4), torch.arange(8) % 3
DATA = ft.Datasets(train=[SAMPLES] * 3, test=SAMPLES)


@dataclass(frozen=True)
class Some(Optimizer):
    """An optimizer whose steps change the first `count` tensors, or copies of all."""

    count: int | None
    flat = False

    def start(self, params):
        return Steps([one.detach().clone() for one in params] if self.count is None else params[: self.count])


class Steps:
    def __init__(self, params):
        self._params = params

    def step_(self, params, grads):
        for param, grad in zip(self._params, grads, strict=False):
            param.data.sub_(grad, alpha=0.1)


@dataclass(frozen=True)
class First(Optimizer):
    """An optimizer of flat vectors that changes the first numbers only."""

    numbers: int

    def start(self, params):
        return self

    def step_(self, params, grads):
        for param, grad in zip(params, grads, strict=True):
            param[: self.numbers] -= 0.1 * grad[: self.numbers]


def start_of(optimizer, model=MODEL):
    task = ft.SupervisedTask(model, nn.functional.cross_entropy)
    local = ft.Local(optimizer, steps=1, batch_size=4)
    federation = ft.Federation(task, DATA, cohort=2, local=local, selection="full", executor="serial")
    return federation.run(rounds=1)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.1)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (lambda given: adam(given[:1]), r"exactly the parameters .* it lacks 0\.bias, 1\.weight, 1\.bias\."),
        (
            lambda given: adam(copy.deepcopy(MODEL).parameters()),
            r"it lacks 0\.weight, 0\.bias, 1\.weight, 1\.bias; it also holds others, of the shapes \(4, 4\)",
        ),
        (lambda given: adam([*given, nn.Parameter(torch.ones(5))]), r"; it also holds others, .* \(5,\)\."),
        (Some(3), r"'Some'; .* they do not change 1\.bias\. step_ has to change the tensors"),
        (Some(None), r"they do not change 0\.weight, 0\.bias, 1\.weight, 1\.bias\."),
        (First(20), r"they do not change 1\.weight, 1\.bias\."),
    ],
)
def test_an_optimizer_of_some_or_of_other_parameters_is_refused_before_round_1(optimizer, message):
    with pytest.raises(ft.InputError, match=rf"^training\.optimizer: got .*{message}"):
        start_of(optimizer)


def test_a_function_that_ignores_what_a_client_trains_is_refused_in_the_round():
    held = []  # by the trial, all parameters; a client that trains one block gets fewer

    def remembers(parameters):
        held[:] = held or parameters
        return adam(held)

    task = ft.SupervisedTask(nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)]), nn.functional.cross_entropy)
    chosen = {"selector": "top", "budget": 1, "always": "none"}
    federation = ft.Federation(
        task, DATA, cohort=2, local=ft.Local(remembers, steps=1), client_selection=chosen, selection="full"
    )
    with pytest.raises(ClientError, match=r"optimizer: got .*; it also holds others"):
        federation.run(rounds=1)


def test_frozen_parameters_may_be_missing_or_present_and_the_trial_leaves_no_trace():
    model = copy.deepcopy(MODEL)
    model[0].requires_grad_(False)
    frozen = model[0].weight
    found = [start_of(optimizer, model).params for optimizer in (adam, lambda given: adam([*given, frozen]))]
    assert torch.equal(*found)
    tried, plain = start_of(Some(4)), start_of(Sgd(lr=0.1))
    assert torch.equal(tried.params, plain.params)
