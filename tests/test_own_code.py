"""Tests which of the user's code belongs to a run's identity."""

import functools
import importlib
import sys
from dataclasses import dataclass

import pytest
import torch
from support.own_parts import Cautious, Unchecked, middle

from fedtlu_fast.aggregation import FunctionRule, Krum
from fedtlu_fast.own_code import own_code


def test_parts_of_the_package_are_known_by_its_version():
    given = [Krum(1), torch.nn.Linear(2, 1), 3, None, "text", torch.nn.functional.cross_entropy]
    assert own_code(given) == {}


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
    assert names == {"Holder", "Net", "Block"}


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
