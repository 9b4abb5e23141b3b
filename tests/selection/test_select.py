"""Tests `select`: the selector's choice, and the rules that hold for every selector."""

import numpy as np
import pytest
import torch

from fedtlu_fast import ParameterLayout
from fedtlu_fast.randomness import generator as draws_of
from fedtlu_fast.registry import NAMES, find
from fedtlu_fast.selection import Evidence, ServerRoom, select
from fedtlu_fast.selection.select import selection_of

LAYOUT = ParameterLayout.from_shapes(
    {
        "embedding.weight": (9, 9),
        **{f"h.{index}.{kind}": shape for index in range(3) for kind, shape in (("w", (2, 2)), ("b", (2,)))},
        "head.weight": (7,),
    }
)
SELECTORS = tuple(name for name in NAMES["selector"] if name != "oracle")  # which needs samples
NONE = torch.zeros(len(LAYOUT.layers), dtype=torch.float64)


def choose(name="fedtlu", scores=(0, 1, 3, 2, 0), quotas=(1,), unique="always", nonfinite=NONE, **at):
    metrics = {"excess": np.array([scores], dtype=np.float64)}
    draws = draws_of(at.get("seed", 0), "selection", at.get("round_index", 1))
    selector = find("selector", name, "selector")()
    room = ServerRoom(LAYOUT, quotas)
    return select(selector, Evidence(LAYOUT, metrics, draws), room, unique, nonfinite)


def test_a_selection_names_its_blocks_layers_and_parameters():
    got = choose()
    assert got.blocks == (0, 2, 4)
    assert got.names == ("embedding", "h.1", "head")
    assert got.mask.tolist() == [True, False, False, True, True, False, False, True]
    assert got.parameters == 81 + 6 + 7


@pytest.mark.parametrize("name", sorted(set(SELECTORS) - {"full"}))
def test_blocks_without_a_like_are_updated_always_or_never(name):
    always, never = (choose(name, unique=rule) for rule in ("always", "never"))
    assert {"embedding", "head"} <= set(always.names)
    assert set(always.names) - {"embedding", "head"} == set(never.names)
    assert len(never.names) == 1


def test_full_updates_everything_whatever_the_rule():
    for rule in ("always", "never"):
        assert choose("full", unique=rule).parameters == LAYOUT.size


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("rule", ["always", "never"])
def test_blocks_with_nan_or_inf_are_never_applied(name, rule):
    for layer in range(len(LAYOUT.layers)):
        nonfinite = NONE.clone()
        nonfinite[layer] = 1
        got = choose(name, quotas=(3,), unique=rule, nonfinite=nonfinite)
        clean = choose(name, quotas=(3,), unique=rule)
        assert not got.mask[layer]
        (lost,) = (index for index, block in enumerate(LAYOUT.blocks) if layer in block.layers)
        assert set(got.blocks) == set(clean.blocks) - {lost}


def test_nothing_may_be_left():
    got = choose("full", nonfinite=NONE + 1)
    assert (got.blocks, got.names, got.parameters) == ((), (), 0)
    assert not got.mask.any()


def test_the_same_seed_and_round_give_the_same_choice():
    rounds = [[choose("random", seed=seed, round_index=i).blocks for i in range(20)] for seed in (1, 1, 2)]
    assert rounds[0] == rounds[1] != rounds[2]
    assert len(set(rounds[0])) == 3


def test_selection_of_exactly_these_blocks():
    got = selection_of(LAYOUT, (3,))
    assert (got.names, got.parameters) == (("h.2",), 6)
    assert got.mask.nonzero().flatten().tolist() == [5, 6]
