"""Executors in settings: a name, a dotted name or an object, with their parameters beside them."""

import pytest
from support.own_executors import Backward

import fedtlu_fast as ft
from fedtlu_fast.config import ExecutionConfig
from fedtlu_fast.config.chooser import Unfound
from fedtlu_fast.config.settings import laid_over, load_config, parse_config, read_config
from fedtlu_fast.executors.parts import Auto

BACKWARD = "support.own_executors:Backward"


def executor_of(*overrides):
    return load_config("quickstart", overrides=overrides).execution.executor


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], Auto()),
        (["workers=3", "retries=1"], Auto(workers=3, retries=1)),
        (["executor=serial"], ft.Serial()),
        (["executor=serial", "workers=3"], ft.Serial()),
        (["executor=vectorized", "retries=0"], ft.Vectorized(retries=0)),
        (["executor=processes", "workers=3", "client_seconds=2"], ft.Processes(3, client_seconds=2)),
        (["executor=ray"], ft.Ray()),
        (["executor=ray:auto", "workers=2"], ft.Ray("auto", 2)),
        (["executor=ray:10.0.0.1:6379"], ft.Ray("10.0.0.1:6379")),
        ([f"executor={BACKWARD}"], Backward()),
        ([f"executor={BACKWARD}", "execution.most=5"], Backward(5)),
    ],
    ids=str,
)
def test_a_name_and_its_parameters_are_an_object(overrides, expected):
    assert executor_of(*overrides) == expected


@pytest.mark.parametrize(
    "executor",
    [ft.Serial(retries=1), ft.Processes(2), ft.Ray("auto", client_seconds=3), Backward(3)],
    ids=str,
)
def test_an_object_is_written_down_and_read_again(executor):
    config = load_config("quickstart", settings={"execution": {"executor": executor}})
    assert config.execution.executor is executor
    assert parse_config(config.model_dump(mode="json")).execution.executor == executor
    assert laid_over(config, ["rounds=50"]).execution.executor == executor


@pytest.mark.parametrize(
    ("execution", "message"),
    [
        (
            {"executor": "serial:3"},
            "execution.executor: got 'serial:3'; expected serial without a value: it t",
        ),
        (
            {"executor": "vectorized:3"},
            "execution.executor: got 'vectorized:3'; expected vectorized without a",
        ),
        ({"executor": "processes:2:9:1:0"}, "expected at most 3 values after processes: workers, client_s"),
        ({"executor": "threads"}, "execution.executor: got 'threads'; expected one of auto, serial"),
        ({"executor": "no.such:Pool"}, "execution.executor: got 'no.such:Pool'; expected"),
        ({"executor": True}, "execution.executor: "),
        ({"executor": ft.Serial}, r"execution.executor: .*Write Serial\(...\)"),
        ({"executor": ft.Mean()}, "execution.executor: got 'fedtlu_fast.*'; expected a executor|an executor"),
        (
            {"executor": ft.Processes(2), "workers": 3},
            "execution.workers: got 3; expected no value beside",
        ),
        ({"workers": 0}, "execution.workers: got 0; expected greater than or equal to 1"),
        ({"executor": "processes", "workers": 5000}, "execution.workers: got 5000; expected less than"),
        (
            {"executor": "serial", "client_seconds": 1},
            "execution.client_seconds: got 1.0; expected null with",
        ),
        ({"executor": "serial", "address": "auto"}, "execution.address: got 'auto'; expected no value with"),
        (
            {"executor": BACKWARD, "client_seconds": 1},
            "client_seconds: got 1; expected no value with ex",
        ),
        ({"executor": BACKWARD, "workers": 2}, "execution.workers: got 2; expected no value"),
        ({"executor": BACKWARD, "most": 0}, "execution.most: got 0; expected greater than or equal to 1"),
        (
            {"executor": ft.Vectorized(), "compile": "default"},
            "execution.compile: got 'default'; expected none",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_by_the_setting_s_name(execution, message):
    with pytest.raises(ft.InputError, match=message):
        parse_config({"execution": execution})


def test_the_config_yaml_of_earlier_versions_is_read(tmp_path):
    """Each had all settings of all executors."""
    rest = "client_seconds: null, retries: 3, workers: "
    for text, expected in (
        (f"{{executor: serial, {rest}2}}", ft.Serial()),
        (f"{{executor: 'ray:10.0.0.1:6379', {rest}2}}", ft.Ray("10.0.0.1:6379", 2)),
        (f"{{executor: auto, {rest}null}}", Auto()),
    ):
        assert read_config(f"execution: {text}", tmp_path).execution.executor == expected


def test_an_executor_that_is_gone_can_be_replaced(tmp_path):
    written = "execution: {executor: 'no.such:Pool', size: 3, workers: 2, lanes: 8}"
    config = read_config(written, tmp_path)
    assert isinstance(config.execution.executor, Unfound)
    assert str(config.execution.executor.error).startswith("execution.executor: got 'no.such:Pool'")
    again = laid_over(config, ["execution.executor=serial"]).execution
    assert (again.executor, again.lanes) == (ft.Serial(), 8)
    with pytest.raises(ft.InputError, match=r"execution.executor: got 'no.such:Pool'"):
        laid_over(config, [])


def test_what_becomes_of_failures_is_taken_over_where_the_executor_can_do_it():
    strict = ExecutionConfig(executor=ft.Processes(2, client_seconds=5, retries=0), client_errors="drop")
    found = ExecutionConfig(executor=ft.Ray("auto")).with_policy_of(strict)
    assert (found.executor, found.client_errors) == (ft.Ray("auto", client_seconds=5, retries=0), "drop")
    own = ExecutionConfig(executor=Backward(3)).with_policy_of(strict)
    assert (own.executor, own.client_errors, own.retries) == (Backward(3), "drop", 3)
    with pytest.raises(ft.InputError, match=r"execution.client_seconds: got 5.0; expected null with"):
        ExecutionConfig(executor=ft.Serial()).with_policy_of(strict)
