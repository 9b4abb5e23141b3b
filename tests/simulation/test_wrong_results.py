"""Tests that wrong results of the user's parts are refused with the part, its method and what it returned."""

import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fedtlu_fast as ft
from fedtlu_fast.aggregation.rule import Aggregated, StackedRule
from fedtlu_fast.client_steps.step import Arrival
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.errors import ClientError, InputError
from tests.simulation.test_failing_parts import DIGITS, SYNTHETIC


@dataclass(frozen=True)
class Updates(ft.ClientStep):
    """A step that replaces fields of the update or of the start."""

    update: Any = ()
    start: Any = ()

    def before(self, client, start):
        return replace(start, **dict(self.start))

    def after(self, client, update):
        return replace(update, **dict(self.update))


@dataclass(frozen=True)
class Halves(ft.ClientStep):
    method: str
    result: Any

    def server_half(self, server):
        if self.method == "server_half":
            return self.result
        return type("Half", (ft.ServerHalf,), {self.method: lambda half, *given: self.result})()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("loss", None),
        ("loss", torch.tensor(1.0)),
        ("weight", 10**400),
        ("samples", -5),
        ("samples", "x"),
        ("steps", "a"),
        ("sent", -1),
        ("sent", "x"),
        ("sent", [0]),
        ("sent", True),
        ("sent", (0, 99)),
        ("sent", (1, 0)),
        ("sent", (0.5,)),
    ],
)
def test_a_wrong_field_of_an_update_is_named(field, value):
    with pytest.raises(ClientError, match=rf"client_steps\.Updates: {field}: got "):
        ft.simulate(parse_config({**SYNTHETIC, "client_steps": [Updates(update=((field, value),))]}))


@pytest.mark.parametrize(
    ("field", "value"),
    [("correction", torch.zeros(2)), ("correction", [1.0]), ("blocks", (99,)), ("blocks", [0])],
)
def test_a_wrong_field_of_a_start_is_named(field, value):
    with pytest.raises(ClientError, match=rf"client_steps\.Updates: {field}: got "):
        ft.simulate(parse_config({**SYNTHETIC, "client_steps": [Updates(start=((field, value),))]}))


def test_a_step_may_say_which_blocks_are_sent():
    chosen = {"client_selection": {"selector": "top", "budget": 2}}
    steps = [Updates(update=(("sent", (0, 1)),))]
    config = parse_config({**SYNTHETIC, **chosen, "client_steps": steps})
    assert ft.simulate(config).metrics[0]["refused"] == []


class Divides(StackedRule):
    """A rule that divides by 0."""

    def finish(self, state):
        return Aggregated(state.start.base * torch.nan)


@pytest.mark.parametrize("rule", [Divides(), lambda updates, weights: updates[0] / 0])
def test_a_rule_whose_change_is_not_finite_is_refused_by_its_name(rule):
    name = r"Divides\.finish\(\)" if isinstance(rule, Divides) else "<lambda>"
    with pytest.raises(
        InputError,
        match=rf"rule: got '.* that are NaN or infinite'; expected {name} to return .* Look for divisions",
    ):
        ft.simulate(parse_config({**SYNTHETIC, "aggregation": {"rule": rule}}))


@pytest.mark.parametrize(
    ("method", "result"),
    [
        ("server_half", None),
        ("receive", 5),
        ("receive", Arrival((0,), (torch.zeros(2), torch.zeros(0)), True, 1.0)),
        ("finish", [3]),
        ("finish", None),
        ("complete", None),
        ("complete", torch.zeros(3)),
    ],
)
def test_a_wrong_result_of_a_server_half_names_its_method(method, result):
    with pytest.raises(InputError, match=rf"client_steps: got .*; expected \w+\.{method}\(\) to return "):
        ft.simulate(parse_config({**SYNTHETIC, "client_steps": [Halves(method, result)]}))


@pytest.mark.parametrize("found", [None, "abcd", [np.zeros(3)] * 4, [None] * 4])
def test_a_wrong_result_of_a_partitioner_is_named(found):
    deals = type("Deals", (ft.Partitioner,), {"partition": lambda self, to_deal, chance: found})()
    with pytest.raises(InputError, match=r"partition\.name: got .*; expected Deals\.partition\(\) to return"):
        ft.simulate(parse_config({**DIGITS, "partition": {"name": deals}}))


@pytest.mark.parametrize(
    ("act", "field"),
    [
        (lambda run: run.stop(object()), "stop"),
        (lambda run: run.log(a=10**400), r"log\(a=...\)"),
        (lambda run: run.keep_as_best("x", float("nan")), r"keep_as_best\(value\)"),
        (lambda run: run.keep_as_best(3, 1.0), r"keep_as_best\(metric\)"),
        (lambda run: run.row.clear(), r"run\.row"),
        (lambda run: run.row.update(x=object()), r"run\.row"),
        (lambda run: run.row.update(round=77), r"run\.row"),
        (lambda run: run.choice.clear(), r"run\.choice"),
    ],
)
def test_a_callback_that_does_what_it_must_not_is_told(act, field):
    callback = type("Acts", (ft.Callback,), {"on_round_end": lambda self, run: act(run)})()
    with pytest.raises(InputError, match=rf"^{field}: got "):
        ft.simulate(parse_config(SYNTHETIC), callbacks=[callback])


@pytest.mark.parametrize("found", [None, ["a", "b"], [0.0, 1.0], [True, False], np.zeros(2), "ab", 3])
def test_a_wrong_draw_of_a_sampler_is_named(found):
    draws = type("Draws", (ft.Sampler,), {"draw": lambda self, pool, count: found})()
    with pytest.raises(
        InputError, match=r"participation\.sampler: got .*; expected Draws\.draw\(\) to return"
    ):
        ft.simulate(parse_config({**SYNTHETIC, "participation": {"sampler": draws}}))


def test_complex_scores_and_metrics_are_refused():
    def score(change):
        return torch.ones(len(change.layout.blocks)) * 1j

    with pytest.raises(InputError, match=r"Tensor of torch.complex64 .* real numbers"):
        ft.simulate(parse_config({**SYNTHETIC, "selection": {"selector": score}}))
    task = ft.SupervisedTask(nn.Linear(4, 3), F.cross_entropy, {"a": lambda outputs, targets: 1j})
    with pytest.raises(InputError, match=r"metrics\['a'\]: got .*complex"):
        task.measured((torch.ones(2, 4), torch.zeros(2).long()))


def test_a_function_that_observes_cannot_change_the_rows():
    result = ft.simulate(parse_config(SYNTHETIC), callbacks=[lambda row: row.clear()])
    assert result.metrics[0]["round"] == 1


def test_a_model_that_cannot_be_copied_is_named():
    model = nn.Linear(4, 3)
    model.lock = threading.Lock()
    data = ft.Datasets(
        train=[(torch.zeros(4, 4), torch.zeros(4).long())] * 2,
        test=(torch.zeros(2, 4), torch.zeros(2).long()),
    )
    with pytest.raises(InputError, match=r"task\.model: got 'Linear'; expected .*deepcopy.*lock"):
        ft.Federation(ft.SupervisedTask(model, F.cross_entropy), data, cohort=1)


def test_a_loss_whose_labels_are_all_ignored_is_0():
    model = nn.Linear(4, 3)
    loss = ft.SupervisedTask(model, F.cross_entropy).loss((torch.ones(2, 4), torch.full((2,), -100)))
    loss.backward()
    assert loss == 0
    assert torch.equal(model.weight.grad, torch.zeros(3, 4))
