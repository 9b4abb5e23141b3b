"""Tests which settings of client selection are refused, alone and beside other settings."""

import pytest

from fedtlu_fast import InputError
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.registry import NAMES, find
from fedtlu_fast.scoring.block_metrics import asks
from fedtlu_fast.selection.budgets import Equal


def parse(chosen, **over):
    return parse_config({"client_selection": chosen, **over})


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"selector": "best"}, "selector"),
        ({"selector": "none", "frozen": "none"}, "frozen"),
        ({"selector": "full", "budget": 2}, "budget"),
        ({"selector": "fedlp", "budget": 2}, "budget"),
        ({"selector": "top", "probe_every": 2}, "probe_every"),
        ({"selector": "fedluar", "probe_batches": 2}, "probe_batches"),
        ({"selector": "gradnorm", "lam": 0.5}, "lam"),
        ({"selector": "rgn", "metric": "snr"}, "metric"),
        ({"selector": "random", "probability": 0.2}, "probability"),
        ({"selector": "top", "rounds_per_block": 2}, "rounds_per_block"),
        ({"selector": "top", "full_rounds": 2}, "full_rounds"),
        ({"selector": "strategic", "lam": -0.1}, "lam"),
        ({"selector": "agreeing", "kept": 1.1}, "kept"),
        ({"selector": "agreeing", "lam": 0.5}, "lam"),
        ({"selector": "agreeing", "decides": "client"}, "decides"),
        ({"selector": "fedlp", "probability": 0}, "probability"),
        ({"selector": "gradnorm", "probe_every": 0}, "probe_every"),
        ({"selector": "strategic", "decides": "client"}, "decides"),
        ({"selector": "fedpart", "decides": "client"}, "decides"),
        ({"selector": "fedluar", "decides": "client"}, "decides"),
    ],
    ids=str,
)
def test_settings_that_mean_nothing_are_refused(given, field):
    with pytest.raises(InputError) as caught:
        parse(given)
    assert caught.value.field == f"client_selection.{field}"


@asks("client_values")
def of_others(change):
    return [0.0] * len(change.layout.blocks)


def test_a_score_that_asks_for_other_clients_is_refused():
    with pytest.raises(InputError, match="ask for client_values: a client knows its own change only"):
        parse({"selector": of_others})


def test_settings_that_mean_something_are_taken():
    for name in NAMES["client_selector"]:
        if find("client_selector", name, "selector").budgeted:
            given = {"selector": name, "budget": 2}
            found = parse(given, evaluation={"local_held_out": 0.5})
            assert found.client_selection.budget.budget == Equal(2)
    parse({"selector": "strategic", "lam": 0, "decides": "client"})
    parse({"selector": "gradnorm", "decides": "client", "probe_every": 3, "probe_batches": 2})


@pytest.mark.parametrize("selector", ["full", "strategic", "fedlp"])
@pytest.mark.parametrize(
    ("over", "field"),
    [
        ({"aggregation": {"rule": "krum"}}, "aggregation.rule"),
        ({"aggregation": {"rule": "median"}}, "aggregation.rule"),
        ({"threats": ["a_little_is_enough:0.2"]}, "threats"),
    ],
    ids=str,
)
def test_what_knows_nothing_of_blocks_is_refused_beside_it(selector, over, field):
    parse({"selector": "none"}, **over)
    with pytest.raises(InputError) as caught:
        parse({"selector": selector}, **over)
    assert caught.value.field == field
    assert f"client_selection.selector={selector}" in caught.value.expected


def test_clipping_and_other_threats_go_with_it():
    config = parse({"selector": "top"}, aggregation={"rule": "norm_clip"}, threats=["sign_flip:0.2"])
    assert not config.aggregation.rule.takes_sums
