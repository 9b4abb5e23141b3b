"""Tests that mistakes in parts of the user's, which would give wrong numbers and no error, are refused."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import fedtlu_fast as ft
from fedtlu_fast.errors import ClientError


def federation(loss=cross_entropy, metrics=None, counts=None, model=None, nan=False, **over):
    draws = torch.Generator().manual_seed(0)
    train = [(torch.randn(6, 4, generator=draws), torch.arange(6) % 3) for _ in range(4)]
    data = ft.Datasets(train, (torch.ones(5, 4) * (torch.nan if nan else 1), torch.arange(5) % 3))
    plain = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3)), torch.nn.Linear(4, 3))
    task = ft.SupervisedTask(model or plain, loss, metrics, counts=counts)
    return ft.Federation(task, data, **{"cohort": 2, "keep": 1, "executor": "serial", **over})


@dataclass(frozen=True)
class Spoils(ft.Selector):
    def choose(self, evidence, room):
        evidence.layout.offsets.zero_()
        return np.broadcast_to(room.whole, (evidence.rows, len(evidence.layout.blocks)))


@dataclass(frozen=True)
class Sends(ft.ClientStep):
    def after(self, client, update):
        return replace(update, sent=(0,))


@dataclass(frozen=True)
class Keeps(ft.AggregationRule):
    """The mean, which keeps the vectors that it gets."""

    def start(self, start):
        return [start.base]

    def add(self, state, client, weight, vector):
        return [*state, vector]

    def finish(self, state):
        return ft.Aggregated((torch.stack(state[1:]) - state[0]).mean(dim=0))


class Plain(ft.Selector):
    def __init__(self, size=1):
        self.size = size

    def choose(self, evidence, room):
        return room.whole


def scores(change):
    change.parameters.abs_()
    return range(len(change.layout.blocks))


def own_scores(change):
    change.stats.l2.zero_()
    return range(len(change.layout.blocks))


def right(outputs, targets):
    return (outputs.argmax(1) == targets).float()


def clamped(outputs, targets):
    return outputs.clamp_(0, 1)[:, 0]


def shifted(outputs, targets):
    return targets.add_(1).float()


def pruned(model, batch):
    with torch.no_grad():
        model[0].weight.zero_()
    return 1.0


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (
            {"selection": Spoils()},
            r"selection\.selector: got 'Spoils\.choose, which changed layout\.offsets in",
        ),
        ({"selection": scores}, r"selection\.selector: got 'scores, which changed parameters in place'"),
        (
            {"selection": own_scores},
            r"selection\.selector: got 'own_scores, which changed stats\.l2 in place'",
        ),
        ({"selection": Plain()}, r"Plain: got 'a class with parameters'.*Put @fedtlu_fast\.part above"),
        ({"metrics": {"a": clamped, "b": right}}, r"metrics\['a'\]: got 'clamped, which changed outputs in"),
        ({"metrics": {"a": shifted}}, r"metrics\['a'\]: got 'shifted, which changed batch\[1\] in place'"),
        (
            {"metrics": {"a": pruned}},
            r"metrics\['a'\]: got 'pruned, which changed model\.0\.weight in place'",
        ),
        ({"counts": 3}, r"counts: got 3; expected a function of a batch"),
        ({"counts": lambda batch: 1 / 0}, r"counts: got .*ZeroDivisionError"),
        ({"counts": lambda batch: -torch.ones(len(batch[0]))}, r"counts: got -1\.0; expected whole numbers"),
        ({"counts": lambda batch: torch.full((len(batch[0]),), 0.5)}, r"counts: got 0\.5; expected whole"),
        ({"nan": True}, r"task: got 'a loss of NaN or Inf'"),
        (
            {"local": ft.Local(lambda parameters: torch.optim.LBFGS(parameters), steps=1)},
            r"training\.optimizer: got 'LBFGS, made by .*needs no closure",
        ),
    ],
)
def test_a_mistake_is_an_error_that_names_it(over, message):
    with pytest.raises(ft.InputError, match=f"^{message}"):
        federation(**over).run(rounds=1)


def test_blocks_that_are_sent_without_a_choice_of_clients_are_refused():
    with pytest.raises(ClientError, match=r"client_steps\.Sends: sent: got \(0,\); expected None"):
        federation(client_steps=[Sends()]).run(rounds=1)
    federation(client_steps=[Sends()], client_selection="full").run(rounds=1)


def test_a_rule_may_keep_the_vectors_that_it_gets():
    torch.manual_seed(0)
    kept = federation(aggregation=Keeps())
    torch.manual_seed(0)
    mean = federation(aggregation="mean")
    found, expected = kept.run(rounds=1).params, mean.run(rounds=1).params
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.equal(expected, mean.run(rounds=2).params)


def test_inputs_of_another_dtype_are_told_what_the_model_has():
    class Doubled(torch.nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs.double())

    message = r"model: got 'Doubled'.*Models are trained in float32"
    with pytest.raises(ft.InputError, match=message):
        federation(model=Doubled(4, 3).double(), selection="full").run(rounds=1)


def test_a_module_in_two_places_is_trained_one_client_after_another():
    one = torch.nn.Linear(4, 4)
    model = torch.nn.Sequential(one, torch.nn.ReLU(), one, torch.nn.Linear(4, 3))
    with pytest.raises(ft.InputError, match=r"one module in several places \(0 and 2\)"):
        federation(model=model, selection="full", executor="vectorized").run(rounds=1)
    federation(model=model, selection="full").run(rounds=1)


def test_a_module_that_exits_when_it_is_imported_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "exits_of_this_test.py").write_text("raise SystemExit(7)")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ft.InputError, match=r"aggregation\.rule: got 'exits_of_this_test:mean'.*SystemExit"):
        federation(aggregation="exits_of_this_test:mean")
