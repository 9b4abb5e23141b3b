"""Runs with an executor of a user's own: settings, objects, resume, comparisons."""

import importlib
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import pytest
import torch
from support.federations import tiny
from support.own_executors import Backward

import fedtlu_fast as ft
from fedtlu_fast import simulate
from fedtlu_fast.build.stored import read_stored
from fedtlu_fast.config.settings import laid_over
from fedtlu_fast.errors import WorkerError
from fedtlu_fast.experiments.compare import compare

BACKWARD = {
    "executor": "support.own_executors:Backward",
    "most": 3,
    "clients_per_batch": 1,
    "engine": "torch",
}


def test_the_bits_are_those_of_the_others(text):
    expected = simulate(tiny(text)).params
    for execution in (BACKWARD, {"executor": Backward(1)}):
        assert torch.equal(simulate(tiny(text, execution=execution)).params, expected)


def test_a_federation_takes_it_as_an_object_and_by_its_name():
    draws = torch.Generator().manual_seed(0)
    train = [(torch.randn(8, 4, generator=draws), torch.arange(8) % 3) for _ in range(6)]
    data = ft.Datasets(train=train, test=train[0])
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 3))
    task = ft.SupervisedTask(model, torch.nn.functional.cross_entropy)
    found = [
        ft.Federation(task, data, cohort=3, granularity="tensor", keep=1, executor=executor).run(2).params
        for executor in ("serial", Backward(2), "support.own_executors:Backward", ft.Serial())
    ]
    assert all(torch.equal(found[0], other) for other in found[1:])
    with pytest.raises(ft.InputError, match=r"execution.workers: got 2; expected no value beside an object"):
        ft.Federation(task, data, cohort=3, executor=ft.Processes(3), workers=2)


@pytest.mark.parametrize(
    ("execution", "over", "message"),
    [
        ({"most": 13}, {}, "^execution.most: got 13; expected another, for luck"),
        ({"most": 14}, {}, "^execution.most: got 14; expected fewer"),
        ({"most": 2}, {"threads": 3}, "^threads: got 3; expected another with this executor"),
    ],
    ids=["check", "open", "threads"],
)
def test_what_it_cannot_do_is_an_error_that_names_the_setting(text, execution, over, message):
    with pytest.raises(ft.InputError, match=message):
        simulate(tiny(text, execution={**BACKWARD, **execution}, **over))


def test_a_run_goes_on_with_another_executor_and_back(text, tmp_path):
    config, out = tiny(text, execution=BACKWARD, warmup_rounds=1, rounds=4), tmp_path / "run"
    whole = simulate(config).params
    simulate(config.model_copy(update={"rounds": 2}), out)
    simulate(laid_over(config, ["rounds=3", "execution.executor=serial"]), out, resume=True)
    result = simulate(config, out, resume=True)
    assert torch.equal(result.params, whole)
    assert read_stored(out).execution.executor == Backward(3), "as it began"


@dataclass(frozen=True)
class Returns(ft.ExecutorPart):
    """Trains in this process, and returns what a function makes of the trainer, the start and the lanes."""

    results: Callable[..., object]

    def open(self, work):
        return OpenReturns(work.trainer, self.results)


class OpenReturns:
    def __init__(self, trainer, results):
        self.trainer, self.results = trainer, results

    def train(self, start, lanes):
        return self.results(self.trainer.train, start, lanes)

    def close(self):
        pass


def all_at_once(train, start, lanes):
    return [train(start, lane) for lane in lanes]


def yields_all_at_once(train, start, lanes):
    yield from [train(start, lane) for lane in lanes]


def last_first(train, start, lanes):
    return (train(start, lane) for lane in reversed(lanes))


def one_more(train, start, lanes):
    return (train(start, lane) for lane in [*lanes, lanes[0]])


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (all_at_once, r"lane 0, whose memory holds that of lane 2'; .*Use yield instead of a list"),
        (yields_all_at_once, r"lane 0, whose memory holds that of lane 2'; .*Use yield instead of a list"),
        (last_first, r"lane 2 in the place of lane 0'; .*the order of the lanes"),
        (one_more, r"more results'; expected OpenReturns\.train\(\) to return 3 results"),
        (lambda *given: None, r"None; .*an iterator of LaneResults"),
    ],
)
def test_results_that_would_be_mixed_up_are_refused(text, results, message):
    """All results of one trainer share memory, so a list of them holds the last lane several times."""
    with pytest.raises(ft.InputError, match=rf"execution\.executor: got .*{message}"):
        simulate(tiny(text, cohort=3, execution={"executor": Returns(results)}))


def test_what_it_opens_is_an_executor(text):
    with pytest.raises(
        ft.InputError, match=r"Opens\.open\(\) to return an object with the methods train and"
    ):
        simulate(tiny(text, execution={"executor": Opens()}))


@dataclass(frozen=True)
class Opens(ft.ExecutorPart):
    def open(self, work):
        return None


def end(*given):
    os._exit(9)


@dataclass(frozen=True)
class Dies(ft.ExecutorPart):
    """A pool whose processes end while they train."""

    def open(self, work):
        return OpenDies(ProcessPoolExecutor(1, get_context("fork")))


class OpenDies:
    def __init__(self, pool):
        self.pool = pool

    def train(self, start, lanes):
        return self.pool.map(end, range(len(lanes)))

    def close(self):
        self.pool.shutdown(cancel_futures=True)


def test_a_pool_whose_process_ended_is_one_message_that_can_be_resumed(text, tmp_path):
    message = r"^a worker of execution\.executor=Dies ended .*BrokenProcessPool.* you can resume it"
    with pytest.raises(WorkerError, match=message):
        simulate(tiny(text, execution={"executor": Dies()}), tmp_path / "run")


MODULE = """
from support.own_executors import Backward
from fedtlu_fast import part

@part
class Mine(Backward):
    "An executor in a file of its own."
    def workers_for(self, cohort):
        return {workers}
"""


def test_its_code_is_no_part_of_a_run_s_identity(text, tmp_path, monkeypatch):
    """A run goes on when the code of its executor has changed, and with another one when that is gone."""
    monkeypatch.syspath_prepend(str(tmp_path))
    file, out = tmp_path / "mine_of_this_test.py", tmp_path / "run"

    def config_with(workers, rounds):
        file.write_text(MODULE.format(workers=workers))
        sys.modules.pop("mine_of_this_test", None)
        importlib.invalidate_caches()
        own = {"executor": "mine_of_this_test:Mine", "most": 3}
        return tiny(text, execution=own, warmup_rounds=1, rounds=rounds)

    whole = simulate(config_with(1, 4)).params
    simulate(config_with(1, 2), out)
    simulate(config_with(22, 3), out, resume=True)
    file.unlink()
    del sys.modules["mine_of_this_test"]
    left = read_stored(out)
    with pytest.raises(ft.InputError, match=r"execution.executor: got 'mine_of_this_test:Mine'"):
        laid_over(left, ["rounds=4"])
    result = simulate(laid_over(left, ["rounds=4", "execution.executor=serial"]), out, resume=True)
    assert torch.equal(result.params, whole)


def test_a_comparison_runs_every_arm_with_it(text, tmp_path, in_process):
    over, selectors = {"rounds": 2, "warmup_rounds": 1}, ["fedtlu", "full"]
    found = compare(tiny(text, execution=BACKWARD, **over), selectors, [0], tmp_path / "own", jobs=1)
    expected = compare(tiny(text, **over), selectors, [0], tmp_path / "serial", jobs=1)
    digests = [[arm.summary["params_sha256"] for arm in arms] for arms in (found, expected)]
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 2
    assert read_stored(tmp_path / "own/full-seed0").execution.executor == Backward(3)
