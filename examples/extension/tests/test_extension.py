"""Tests that every part works by its name, by its dotted name and as an object, in every executor."""

import re

import pytest
import torch
from fedtlu_extension.algorithm import FedCM
from fedtlu_extension.column import column
from fedtlu_extension.federation import federation
from fedtlu_extension.rule import GeometricMedian
from fedtlu_extension.sampler import Rotating
from fedtlu_extension.selector import Steady
from fedtlu_extension.source import Recipes
from fedtlu_extension.threat import Stale

import fedtlu_fast as ft
from fedtlu_fast.registry import find
from fedtlu_fast.report.own_columns import asked_columns
from fedtlu_fast.testing import check_client_step, check_rule, check_selector

LOCAL = ft.Local(lr=0.05, steps=4, batch_size=8)


def run(**more):
    return federation(local=LOCAL, **more).run(rounds=4)


@pytest.mark.parametrize(
    ("argument", "name", "dotted", "made"),
    [
        ("selection", "steady", "fedtlu_extension.selector:Steady", Steady()),
        ("aggregation", "weiszfeld", "fedtlu_extension.rule:GeometricMedian", GeometricMedian()),
        ("client_steps", ["fedcm"], ["fedtlu_extension.algorithm:FedCM"], [FedCM()]),
        (
            "settings",
            *[
                {"participation": {"sampler": own}}
                for own in ("rotating", "fedtlu_extension.sampler:Rotating", Rotating())
            ],
        ),
        (
            "settings",
            *[{"threats": [own]} for own in ("stale:0.5", "fedtlu_extension.threat:Stale:0.5", Stale(0.5))],
        ),
    ],
)
def test_a_name_a_dotted_name_and_an_object_are_the_same(argument, name, dotted, made):
    found = [run(**{argument: given}).params for given in (name, dotted, made)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], run().params), "the part does something"


def test_the_optimizer_trains_the_clients():
    result = federation(local=ft.Local("lion", steps=10, batch_size=8), keep=3).run(rounds=12)
    assert result.metrics[-1]["test_loss"] < 0.7 * result.metrics[0]["test_loss"]
    assert result.metrics[-1]["test_worst"] < result.metrics[0]["test_worst"]
    with pytest.raises(ft.InputError, match="its optimizer takes the parameters of one model"):
        federation(local=ft.Local("lion"), executor="vectorized").run(rounds=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_same_bits(workers):
    everything = {"selection": Steady(), "aggregation": GeometricMedian(), "client_steps": [FedCM()]}
    serial = run(**everything)
    assert torch.equal(run(executor="processes", workers=workers, **everything).params, serial.params)


def test_a_run_with_all_parts_resumes_to_the_same_bits(tmp_path):
    given = {
        "local": LOCAL,
        "selection": Steady(0.3),
        "client_steps": [FedCM(), Stale(0.4)],
        "settings": {"checkpoint": {"every": 1}},
    }
    whole = federation(**given).run(6, tmp_path / "whole")
    federation(**given).run(3, tmp_path / "cut")
    longer = federation(**given).resume(tmp_path / "cut", rounds=6)
    assert torch.equal(longer.params, whole.params)


def test_the_geometric_median_is_hardly_moved_by_one_client():
    from fedtlu_fast.aggregation import Start

    rule, base = GeometricMedian(steps=50), torch.zeros(4)
    state = rule.start(Start(base, 5))
    for client in range(4):
        state = rule.add(state, client, 1.0, torch.ones(4) + 0.01 * client)
    state = rule.add(state, 4, 1.0, torch.full((4,), 1e6))
    torch.testing.assert_close(rule.finish(state).change, torch.ones(4), atol=0.05, rtol=0)


def test_settings_can_name_the_source():
    settings = {
        "task": "text_classification",
        "data": {"source": "recipes"},
        "clients": 10,
        "cohort": 3,
        "rounds": 2,
    }
    config = ft.load_config(settings=settings)
    assert str(config.data.source) == "recipes"
    assert find("source", "recipes", "data.source") is Recipes
    model = {"layers": 3, "width": 8, "heads": 2}
    result = ft.simulate({**settings, "model": model, "execution": {"executor": "serial"}})
    assert result.summary["data"]["source"] == "recipes"


def test_the_column_is_in_the_report_of_a_run_that_has_ended(tmp_path, caplog):
    settings = {
        "task": "image_classification",
        "clients": 8,
        "cohort": 2,
        "rounds": 2,
        "model": {"layers": 2, "width": 4},
        "execution": {"executor": "serial"},
    }
    result = ft.simulate(settings, tmp_path)
    cost = result.summary["bytes_up"] / 1e6 / (100 * result.summary["test_accuracy"])
    names = ["mb_per_point", "fedtlu_extension.column:column"]
    assert [asked_columns([name]) for name in names] == [(column,), (column,)]
    broken = ft.Column("none", "nothing", figure=lambda run: 1 / 0)
    page = ft.write_report(tmp_path, ["mb_per_point", broken]).read_text(encoding="utf-8")
    shown = dict(re.findall(r"<tr><th[^>]*>([^<]*)</th><td[^>]*>([^<]*)</td></tr>", page))
    assert shown["MB per accuracy point"] == f"{cost:.3f}"
    assert shown["nothing"] in ("-", "–", "—")
    assert caplog.text.count("shows a dash") == caplog.text.count("the column “nothing” shows a dash") == 1


def test_the_parts_keep_the_promises_of_their_interfaces():
    check_selector(Steady(0.5))
    check_rule(GeometricMedian())
    check_client_step(FedCM())
    check_client_step(Stale(0.5))
