"""Tests the settings of budgets: short forms, and values that are refused."""

import pytest
from pydantic import ValidationError

from fedtlu_fast import InputError
from fedtlu_fast.config.budget import BudgetConfig
from fedtlu_fast.config.settings import laid_over, parse_config
from fedtlu_fast.selection.budgets import Device, DeviceClasses, Equal, HalfNormal, UniformBudget

CLASSES = {"phone": {"share": 0.7, "amount": 1}, "server": {"share": 0.3, "amount": 4}}


def of(**tree):
    return BudgetConfig.model_validate(tree)


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"amount": 0.3, "unit": "flops"},
        {"kind": "half_normal", "low": 0.1, "high": 1, "scale": 0.2, "unit": "parameters"},
        {"kind": "list", "values": [1, 2, 4]},
        {"kind": "classes", "classes": CLASSES},
    ],
    ids=str,
)
def test_settings_survive_being_written(tree):
    config = of(**tree)
    assert BudgetConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("short", "tree"),
    [
        (2, {"amount": 2}),
        ("2", {"amount": 2}),
        ("1..4", {"kind": "uniform", "low": 1, "high": 4}),
        ("uniform:2..3", {"kind": "uniform", "low": 2, "high": 3}),
        ("half_normal:1..6", {"kind": "half_normal", "low": 1, "high": 6}),
        ([1, 2, 4], {"kind": "list", "values": (1, 2, 4)}),
        ((1, 2), {"kind": "list", "values": (1, 2)}),
        (CLASSES, {"kind": "classes", "classes": CLASSES}),
        ({"kind": "classes", "classes": CLASSES}, {"kind": "classes", "classes": CLASSES}),
        ({"unit": "flops", "amount": 0.5}, {"unit": "flops", "amount": 0.5}),
        ({}, {}),
        (Equal(0.3, "flops"), {"amount": 0.3, "unit": "flops"}),
        ("support.own_parts:Odd", {"kind": "support.own_parts:Odd"}),
        ("support.own_parts:Odd:2..3", {"kind": "support.own_parts:Odd", "low": 2, "high": 3}),
    ],
    ids=str,
)
def test_short_forms(short, tree):
    assert BudgetConfig.model_validate(short) == of(**tree)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"amount": 0}, "amount: got 0; expected a whole number of layers, at least 1"),
        ({"amount": 0.5}, "amount: got 0.5; .*Set unit=parameters or unit=flops for a share of the work"),
        ({"amount": 2.0}, "amount: got 2.0; expected a whole number of layers"),
        ({"amount": -1}, "amount: got -1"),
        ({"amount": True}, "not true or false"),
        ({"amount": "many"}, "amount"),
        (
            {"amount": 2, "unit": "flops"},
            r"got 2; expected a share of the model's flops, in \(0, 1\]. Set unit=layers",
        ),
        ({"amount": 0.0, "unit": "parameters"}, "got 0.0; expected a share of the model's parameters"),
        ({"unit": "seconds"}, "layers.*parameters.*flops"),
        ({"kind": "gamma"}, "equal.*uniform"),
        ({"kind": "uniform", "low": 3, "high": 2}, "high: got 2; expected at least 3, as in low"),
        ({"kind": "uniform", "low": 0}, "low: got 0; expected a whole number"),
        ({"kind": "uniform", "low": 0.5, "unit": "flops"}, "high: got 4; expected a share"),
        ({"kind": "half_normal", "scale": 0}, "greater than 0"),
        ({"kind": "uniform", "scale": 1.0}, "scale: got 1.0; expected no value with kind=uniform"),
        (
            {"kind": "uniform", "amount": 2},
            "amount: got 2; expected no value with kind=uniform.*Leave it out",
        ),
        ({"kind": "list"}, r"values: got \[\]; expected at least one budget"),
        ({"kind": "list", "values": [1, 0]}, r"values\[1\]: got 0"),
        ({"values": [1]}, "values: got .*with kind=equal"),
        ({"kind": "classes"}, "classes: got {}; expected at least one class"),
        (
            {"kind": "classes", "classes": {"a": {"share": 0.5, "amount": 1}}},
            "shares that sum to 0.5.*sum to 1",
        ),
        ({"kind": "classes", "classes": {"a": {"share": 1.0, "amount": 0}}}, "classes.a.amount: got 0"),
        ({"kind": "classes", "classes": {"a": {"share": 1.5, "amount": 1}}}, "less than or equal to 1"),
        ({"kind": "classes", "classes": {"a": {"amount": 1}}}, "share"),
        ({"ammount": 1}, "ammount"),
    ],
    ids=str,
)
def test_what_is_no_budget_is_refused(tree, message):
    with pytest.raises(ValidationError, match=message):
        of(**tree)


@pytest.mark.parametrize("text", ["", "two", "half_normal:2", "half_normal", "equal:x"])
def test_a_text_that_is_no_short_form_is_refused_with_those_there_are(text):
    with pytest.raises(InputError, match=r"budget: got .*a number such as 2, a range such as 1\.\.4"):
        BudgetConfig.spelled_out(text)


@pytest.mark.parametrize("text", ["1..x", "..", "1..2..3", "gamma:1..2", "1.5..2"])
def test_a_range_of_something_else_is_refused_by_its_validation(text):
    with pytest.raises(ValidationError):
        BudgetConfig.model_validate(text)


def test_parts_check_their_parameters():
    with pytest.raises(InputError, match=r"^high: got 2; expected at least 3, as in low"):
        UniformBudget(3, 2)
    with pytest.raises(InputError, match=r"^scale: got -1; expected greater than 0"):
        HalfNormal(scale=-1)
    with pytest.raises(InputError, match=r"^classes.a.amount: got 0.5; .*for a share of the work"):
        DeviceClasses({"a": Device(1.0, 0.5)})
    with pytest.raises(InputError, match=r"^share: got 2; expected less than or equal to 1"):
        Device(2, 1)


def test_complete_settings_of_an_earlier_version_hold_every_kind_s_defaults():
    earlier = {"kind": "equal", "unit": "layers", "amount": 2, "low": 1, "high": 4, "scale": None}
    assert of(**earlier, values=[], classes={}) == of(amount=2)


def test_a_kind_above_replaces_the_one_below():
    below = parse_config({"client_selection": {"selector": "top", "budget": "half_normal:2..6"}})
    assert laid_over(below, ["client_selection.budget=3"]).client_selection.budget.budget == Equal(3)
    with pytest.raises(InputError, match=r"^client_selection.budget: got 'many'; expected a number such"):
        laid_over(below, ["client_selection.budget=many"])
    with pytest.raises(InputError, match=r"^client_selection.budget.low: got 0; expected a whole number"):
        laid_over(below, ["client_selection.budget=0..3"])
