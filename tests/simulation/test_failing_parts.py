"""What the user's own parts raise becomes one message with the setting, the part and the line."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

import fedtlu_fast as ft
from fedtlu_fast import InputError
from fedtlu_fast.aggregation.rule import StackedRule
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.data.sources.source import VectorSource
from fedtlu_fast.own_errors import named_errors
from fedtlu_fast.selection import Ranking


def fail(*given):
    raise ValueError("boom")


class Deals(ft.Partitioner):
    partition = fail


class Draws(ft.Sampler):
    draw = fail


class DrawsNoNumbers(ft.Sampler):
    def draw(self, pool, count):
        return [int("boom")]


class Reads(VectorSource):
    vectors = fail


class Steps(ft.ServerOptimizer):
    step = fail


class Starts(StackedRule):
    start = finish = fail


class Adds(StackedRule):
    add = finish = fail


class Finishes(StackedRule):
    finish = fail


class Ranks(Ranking):
    needs = ("excess",)
    utility = fail


class RanksClients(Ranking):
    needs = ("gradnorm",)
    utility = fail


@dataclass(frozen=True)
class Trains(ft.ExecutorPart):
    train, close = fail, print

    def open(self, work):
        return self


class Half(ft.ServerHalf):
    receive = fail


class HalfThatCompletes(ft.ServerHalf):
    complete = fail


class HalfThatFinishes(ft.ServerHalf):
    def finish(self):
        yield fail()


@dataclass(frozen=True)
class HasHalf(ft.ClientStep):
    half: Callable[[], object]

    def server_half(self, server):
        return self.half()


SYNTHETIC = {
    "task": "classification",
    "clients": 4,
    "cohort": 2,
    "rounds": 1,
    "data": {"source": "synthetic", "synthetic": {"features": 4, "fewest": 8, "most": 10}},
    "model": {"hidden": [4, 4]},
    "training": {"batch_size": 4, "local_steps": 1},
    "execution": {"executor": "serial"},
}
DIGITS = {
    **SYNTHETIC,
    "task": "digits",
    "data": {},
    "model": {"architecture": "cnn", "width": 8},
}


@pytest.mark.parametrize(
    ("over", "field", "part"),
    [
        ({**DIGITS, "partition": {"name": Deals()}}, "partition.name", "Deals"),
        ({"participation": {"sampler": Draws()}}, "participation.sampler", "Draws"),
        ({"participation": {"sampler": DrawsNoNumbers()}}, "participation.sampler", "DrawsNoNumbers"),
        ({"data": {"source": Reads()}}, "data.source", "Reads"),
        ({"aggregation": {"server_optimizer": Steps()}}, "aggregation.server_optimizer", "Steps"),
        ({"aggregation": {"rule": Starts()}}, "aggregation.rule", "Starts"),
        ({"aggregation": {"rule": Adds()}}, "aggregation.rule", "Adds"),
        ({"aggregation": {"rule": Finishes()}}, "aggregation.rule", "Finishes"),
        ({"selection": {"selector": Ranks()}}, "selection.selector", "Ranks"),
        ({"client_selection": {"selector": RanksClients()}}, "client_selection.selector", "RanksClients"),
        ({"execution": {"executor": Trains()}}, "execution.executor", "Trains"),
        ({"client_steps": [HasHalf(fail)]}, "client_steps", "HasHalf"),
        ({"client_steps": [HasHalf(Half)]}, "client_steps", "Half"),
        ({"client_steps": [HasHalf(HalfThatFinishes)]}, "client_steps", "HalfThatFinishes"),
        ({"client_steps": [HasHalf(HalfThatCompletes)]}, "client_steps", "HalfThatCompletes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_part_that_raises_is_named_with_its_setting_and_line(over, field, part):
    config = parse_config({**SYNTHETIC, **over})
    with pytest.raises(InputError) as caught:
        ft.simulate(config)
    message = rf"{re.escape(field)}: got '.*test_failing_parts:{part}'; .*ValueError: .*boom.*"
    assert re.match(rf"{message}\(.*test_failing_parts\.py:\d+\)$", str(caught.value)), str(caught.value)


@dataclass(frozen=True)
class Returns(Trains):
    results: tuple[object, ...] = ()

    def train(self, start, lanes):
        return iter(self.results)


@pytest.mark.parametrize("results", [(), (None,), ("a", "b")])
def test_an_executor_that_returns_no_results_is_named(results):
    message = r"^execution\.executor: got .*; expected Returns\.train\(\) to return a LaneResult for each of"
    with pytest.raises(InputError, match=message):
        ft.simulate(parse_config({**SYNTHETIC, "execution": {"executor": Returns(results)}}))


def test_a_selector_whose_needs_are_a_text_is_told_of_the_comma():
    class Texts(Ranks):
        needs = "excess"

    message = r"^{}: got .*Texts\.needs = 'excess'.*; expected a tuple of names\. Write needs = \('excess',\)"
    for setting in ("selection", "client_selection"):
        with pytest.raises(InputError, match=message.format(rf"{setting}\.selector")):
            parse_config({**SYNTHETIC, setting: {"selector": Texts()}})


def test_errors_of_ours_and_a_lack_of_memory_stay_as_they_are():
    ours = ft.Krum(byzantine=0)
    for error, part in (
        (InputError("a", 1, "b"), Deals()),
        (MemoryError("none"), Deals()),
        (KeyboardInterrupt(), Deals()),
        (ValueError("a bug"), ours),
    ):
        with pytest.raises(type(error)) as caught, named_errors("field", part):
            raise error
        assert caught.value is error


def test_the_line_is_the_user_s_own_even_where_a_library_raises():
    with pytest.raises(InputError, match=r"test_failing_parts\.py:\d+\)$"), named_errors("field", Deals()):
        torch.zeros(2) + torch.zeros(3)
