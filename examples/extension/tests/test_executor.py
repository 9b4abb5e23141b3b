"""The pool gives the bits of the other executors: as an object, by a name, resumed and in a comparison."""

import pytest
import torch
from fedtlu_extension.executor import Pool
from fedtlu_extension.federation import federation
from fedtlu_extension.selector import Steady

import fedtlu_fast as ft
from fedtlu_fast.experiments.compare import compare
from fedtlu_fast.testing import check_executor

LOCAL = ft.Local(lr=0.05, steps=4, batch_size=8)
SETTINGS = {
    "task": "classification",
    "clients": 10,
    "cohort": 4,
    "rounds": 2,
    "data": {"source": "synthetic"},
    "selection": {"selector": "full"},
    "evaluation": {"trained_clients": 0},
}


def test_it_keeps_the_promises_of_its_interface():
    check_executor(Pool(2))


def test_a_run_goes_on_with_it_and_without_it(tmp_path):
    given = {"local": LOCAL, "selection": Steady(0.3), "settings": {"checkpoint": {"every": 1}}}
    whole = federation(**given).run(3)
    federation(executor=Pool(2), **given).run(1, tmp_path)
    federation(**given).resume(tmp_path, rounds=2)
    again = federation(executor="pool", workers=1, **given).resume(tmp_path, rounds=3)
    assert torch.equal(again.params, whole.params)


def test_a_comparison_takes_it_by_its_dotted_name(tmp_path):
    execution = {"executor": "fedtlu_extension.executor:Pool", "workers": 1}
    found = [
        compare(
            ft.load_config(settings={**SETTINGS, "execution": own}), ["full"], [0, 1], tmp_path / name, jobs=1
        )
        for name, own in (("pool", execution), ("serial", {"executor": "serial"}))
    ]
    digests = [[arm.summary["params_sha256"] for arm in arms] for arms in found]
    assert digests[0] == digests[1]


def test_what_it_cannot_do_is_refused_by_the_setting_s_name():
    with pytest.raises(ft.InputError, match=r"client_seconds: got 5; expected no value with executor=pool"):
        ft.load_config(settings={"execution": {"executor": "pool", "client_seconds": 5}})
    with pytest.raises(ft.InputError, match=r"execution.workers: got 0; expected greater than or equal to 1"):
        ft.load_config(settings={"execution": {"executor": "pool", "workers": 0}})
