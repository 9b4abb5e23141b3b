"""Tests which of the user's code belongs to a run's identity."""

import functools
import importlib
import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from support.own_parts import Cautious, Unchecked, middle

from fedtlu_fast.aggregation import FunctionRule, Krum
from fedtlu_fast.aggregation.rule import StackedRule
from fedtlu_fast.own_code import own_code


def test_parts_of_the_package_are_known_by_its_version():
    assert own_code([Krum(1), 3, None, "text"]) == {}
    given = [torch.nn.Linear(2, 1), torch.nn.functional.cross_entropy]
    assert [name.rpartition(":")[2] for name in own_code(given)] == ["cross_entropy", "Linear, values"]


def test_a_part_of_the_user_s_counts_with_its_bases_and_with_what_it_holds():
    assert own_code([Cautious()]).keys() == {"support.own_parts:Cautious"}
    assert own_code([Unchecked()]).keys() == {"support.own_parts:Cautious", "support.own_parts:Unchecked"}
    for given in (FunctionRule(middle), functools.partial(middle), {"loss": [middle]}):
        assert own_code([given]).keys() == {"support.own_parts:middle"}
    one, same, other = (own_code([functools.partial(middle, weights=value)]) for value in (1, 1, 2))
    assert one == same != other
    assert one.keys() == {"support.own_parts:middle", "support.own_parts:middle, partial"}
    assert own_code([Cautious(0.1)]) == own_code([Cautious(0.9)]), "parameters are in the settings"


def defined(code):
    space = {"__name__": "notebook"}
    exec(code, space)
    return space["score"]


def test_other_code_is_another_identity_even_without_a_source():
    one, same, other = (
        own_code([defined(f"\n{blank}def score(x):\n    return x {sign} 1\n")])
        for blank, sign in (("", "+"), ("\n\n", "+"), ("", "-"))
    )
    assert one == same != other
    assert one.keys() == {"notebook:score"}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Sequential(Block())


class Block(torch.nn.Module):
    pass


@dataclass(frozen=True)
class Holder:
    model: torch.nn.Module


def test_a_model_counts_with_all_its_modules():
    names = {name.rpartition(":")[2] for name in own_code([Holder(Net())])}
    assert {"Holder", "Net", "Block"} <= names
    assert names - {"Holder", "Net", "Block"} == {
        "Holder, model",
        "Net, values",
        "Sequential, values",
        "Block, values",
    }


HELPERS = """
FACTOR = {factor}


def help_(updates):
    return {helped}


def rule(updates, weights):
    return [help_(row) * FACTOR for row in updates]


class Part:
    def finish(self, state):
        return rule(state, None)


def made(inner):
    def closed(updates, weights):
        return updates * inner

    return closed
"""


def module(tmp_path, monkeypatch, name="helped", **values):
    """Makes a module of the user with these values."""
    text = HELPERS.format(**{"factor": 1.0, "helped": "updates", **values})
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    sys.modules.pop(name, None)
    return importlib.import_module(name)


@pytest.mark.parametrize("part", ["rule", "Part"])
def test_functions_and_values_that_a_part_refers_to_belong_to_it(tmp_path, monkeypatch, part):
    def code(**values):
        return own_code([getattr(module(tmp_path, monkeypatch, **values), part)])

    same = code()
    assert code() == same
    assert code(factor=-5.0) != same
    assert code(helped="-updates") != same
    assert {"helped:rule", "helped:help_", "helped:FACTOR"} <= same.keys()
    assert "helped:made" not in same


def test_functions_of_another_module_that_is_named_belong_to_it(tmp_path, monkeypatch):
    def code(**values):
        module(tmp_path, monkeypatch, **values)
        space = {"__name__": "notebook"}
        exec("import helped\ndef mine(updates, weights):\n    return helped.help_(updates)\n", space)
        return own_code([space["mine"]])

    same = code()
    assert code() == same == code(factor=3.0), "it does not read the factor"
    assert code(helped="-updates") != same


def test_values_of_the_function_around_belong_to_it(tmp_path, monkeypatch):
    made = module(tmp_path, monkeypatch).made
    assert own_code([made(1.0)]) == own_code([made(1.0)]) != own_code([made(-5.0)])


class Scale:
    """A callable object with a parameter, a counter, a cache and a list that it fills."""

    def __init__(self, factor):
        self.factor, self.calls, self.seen = factor, 0, []
        self._cache = {}

    def __call__(self, updates, weights):
        self.calls += 1
        self.seen.append(len(updates))
        return self.factor * updates.mean(dim=0)


@dataclass(frozen=True)
class Tilted(StackedRule):
    tilt: object

    def finish(self, state):
        return self.tilt


class Dropping(torch.nn.Module):
    def __init__(self, rate, weight=1.0):
        super().__init__()
        self.drop, self.factor, self.calls = torch.nn.Dropout(rate), 1 + rate, 0
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        self.calls += 1
        return self.factor * self.drop(x)


def by_default(value):
    def rule(updates, weights, scale=value, *, more=value):
        return updates

    return rule


def closed(value):
    return lambda updates, weights: value


def from_exec(value):
    space = {}
    exec(f"def rule(updates, weights): return {value} * updates", space)
    return space["rule"]


def made_by_type(value):
    return type("Made", (StackedRule,), {"factor": value, "finish": lambda self, state: self.factor})()


@pytest.mark.parametrize(
    "made",
    [
        Scale,
        by_default,
        closed,
        from_exec,
        made_by_type,
        Dropping,
        lambda value: closed(torch.tensor(value)),
        lambda value: closed({"a": [value, {"b": (value,)}]}),
        lambda value: functools.partial(middle, options={"a": value}),
        lambda value: Tilted(torch.tensor(value)),
        lambda value: Tilted(np.array(value)),
        lambda value: Tilted(Scale(value)),
        lambda value: torch.nn.CrossEntropyLoss(label_smoothing=value),
        lambda value: torch.nn.CrossEntropyLoss(weight=torch.tensor([value])),
        lambda value: functools.partial(torch.nn.functional.cross_entropy, label_smoothing=value),
        lambda value: torch.nn.functional.relu if value == 0.5 else torch.nn.functional.gelu,
        lambda value: (lambda x: x, lambda x: -x)[value == 0.5],
    ],
)
def test_values_that_parts_hold_belong_to_the_identity(made):
    assert own_code([made(0.5)]) == own_code([made(0.5)]) != own_code([made(0.25)])


SETTINGS = {"factor": 1.0}
COUNTS = {}


def reading(updates, weights):
    COUNTS["calls"] = COUNTS.get("calls", 0) + 1
    return SETTINGS["factor"] * updates


def test_dictionaries_of_a_module_count_unless_the_code_changes_them(monkeypatch):
    before = own_code([reading])
    reading(1.0, None)
    assert own_code([reading]) == before
    monkeypatch.setitem(SETTINGS, "factor", -1.0)
    assert own_code([reading]) != before


def test_what_changes_by_running_does_not_count():
    rule, net = Scale(0.5), Dropping(0.5)
    before = own_code([rule, net])
    rule(torch.ones(2, 3), None)
    rule._cache["a"] = 1
    net.eval()(torch.ones(2))
    assert own_code([rule, net]) == before


def test_weights_of_the_run_s_model_do_not_count_again():
    one, other = Dropping(0.5), Dropping(0.5, weight=2.0)
    assert own_code([one]) != own_code([other])
    assert own_code([one], model=one) == own_code([other], model=other)


class Unreadable:
    __slots__ = ("name",)

    @property
    def __dict__(self):
        raise RuntimeError


def test_an_object_that_cannot_be_read_counts_by_its_class():
    ring = []
    ring.append(ring)
    assert own_code([Unreadable(), ring, closed(ring)]).keys() >= {f"{__name__}:Unreadable"}


SCRIPT = """
import torch
from fedtlu_fast.own_code import own_code

NAMES = {"one", "two", "three", "four"}
HELD = {"b": torch.arange(3.0), "a": {"x", "y", "z"}}

class Rule:
    def __init__(self):
        self.names, self.held, self.mark = {"p", "q", "r"}, HELD, object()
    def __call__(self, updates, weights):
        return [name in NAMES or name in ("e", "f") or name in {"g", "h", "i"} for name in HELD]

print(own_code([Rule(), lambda x: x in {"k", "l", "m"}]))
"""


def test_the_identity_is_the_same_in_every_process(tmp_path):
    (tmp_path / "own_rule.py").write_text(SCRIPT, encoding="utf-8")
    found = {
        subprocess.run(
            [sys.executable, tmp_path / "own_rule.py"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    assert "Rule, held" in found.pop()
