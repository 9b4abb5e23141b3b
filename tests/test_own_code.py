"""Which code of the user's belongs to a run's identity."""

import functools
from dataclasses import dataclass

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
    for given in (FunctionRule(middle), functools.partial(middle, weights=None), {"loss": [middle]}):
        assert own_code([given]).keys() == {"support.own_parts:middle"}
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
