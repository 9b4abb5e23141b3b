"""Which executor a run gets: the one named, or the one measured best; chosen once."""

import itertools
import logging
import random
import re
import sys

import pytest
import torch
import yaml
from support.federations import left
from torch import nn

from fedtlu_fast import InputError, simulate
from fedtlu_fast.build import way as rule
from fedtlu_fast.build.executor import choose as choose_function
from fedtlu_fast.build.executor import make_executor
from fedtlu_fast.build.parts import make_parts
from fedtlu_fast.build.steps import make_steps
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.config.settings import load_config, parse_config
from fedtlu_fast.errors import ClientError
from fedtlu_fast.executors import parts as executor_parts
from fedtlu_fast.executors import processes
from fedtlu_fast.executors.in_process import InProcess
from fedtlu_fast.executors.lanes import cut
from fedtlu_fast.executors.processes import ForkedExecutor
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.tasks.classification import Classification

# The package exports the function of the same name.
choose_module = sys.modules["fedtlu_fast.build.executor"]
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are forked")


def settings_of(execution=None, **over):
    tree = {
        "task": "classification",
        "clients": 30,
        "cohort": 6,
        "rounds": 3,
        "data": {"source": "synthetic", "classes": 4, "synthetic": {"features": 6, "fewest": 4, "most": 9}},
        "model": {"hidden": [5]},
        "training": {"lr": 0.1, "batch_size": 4},
        "selection": {"selector": "full"},
        "evaluation": {"trained_clients": 0, "local_clients": 3},
        "checkpoint": {"every": 1},
        "execution": execution or {},
    }
    return parse_config({**tree, **over})


def parts_of(config, *extra):
    """Population and trainer, with these layers in the model."""
    parts = make_parts(config)
    if not extra:
        return parts.population, parts.trainer
    torch.manual_seed(0)
    task = Classification(nn.Sequential(nn.Linear(6, 5), *extra, nn.ReLU(), nn.Linear(5, 4)))
    layout = ParameterLayout.from_module(task.model)
    return parts.population, LocalTrainer(task, layout, config.training.local, config.seed)


def with_steps(config, population, trainer):
    return population, trainer, make_steps(config, trainer, population)


def name_of(execution):
    return execution.name_of("executor")


def chosen(execution=None, *extra, **over):
    """The settled execution settings, and why."""
    config = settings_of(execution, **over)
    settled, note = choose_function(config, *with_steps(config, *parts_of(config, *extra)))
    unsettled = {"executor", "workers", "clients_per_batch", "engine"}
    assert settled.execution.model_dump(exclude=unsettled) == config.execution.model_dump(exclude=unsettled)
    assert settled.model_dump(exclude={"execution"}) == config.model_dump(exclude={"execution"})
    return settled.execution, note


def made(execution, *extra, **over):
    config = settings_of(execution, **over)
    population, trainer = parts_of(config, *extra)
    settled, _ = choose_function(config, *with_steps(config, population, trainer))
    steps = make_steps(settled, trainer, population)
    return make_executor(settled, population, trainer, steps)


@pytest.fixture
def timed(monkeypatch):
    """Has the measurement of the clients that are tried together give these seconds."""

    def script(seconds, cores=4):
        def fake(call, scale, is_clear):
            call()
            return seconds

        monkeypatch.setattr(choose_module, "_timed", fake)
        monkeypatch.setattr(choose_module, "cores", lambda: cores)

    return script


@pytest.fixture
def unmeasured(monkeypatch):
    def fail(call, scale, is_clear):
        raise AssertionError("it was measured")

    monkeypatch.setattr(choose_module, "_timed", fail)


# --- named ---------------------------------------------------------------------------------------


@linux_only
@pytest.mark.parametrize(
    ("execution", "clients_per_batch"),
    [
        ({"executor": "serial"}, 1),
        ({"executor": "serial", "clients_per_batch": 1}, 1),
        ({"executor": "vectorized", "clients_per_batch": 3}, 3),
        ({"executor": "processes"}, 1),
        ({"executor": "processes", "clients_per_batch": 5, "workers": 2}, 5),
        ({"executor": "serial", "engine": "torch"}, 1),
        ({"executor": "serial", "engine": "compiled"}, 6),
        ({"executor": "serial", "engine": "compiled", "clients_per_batch": 2}, 2),
        ({"executor": "processes", "engine": "compiled", "clients_per_batch": 1}, 1),
    ],
    ids=str,
)
def test_a_named_executor_is_taken_without_a_measurement(unmeasured, execution, clients_per_batch):
    found, note = chosen(execution)
    assert found.engine == execution.get("engine", "torch")
    assert (name_of(found), found.clients_per_batch, note) == (execution["executor"], clients_per_batch, "")


def test_vectorized_takes_what_fits(unmeasured, monkeypatch):
    found, _ = chosen({"executor": "vectorized"})
    assert found.clients_per_batch == rule.MOST_AT_ONCE
    monkeypatch.setattr(rule, "BUDGET", 40_000)
    tight, _ = chosen({"executor": "vectorized"})
    assert 2 < tight.clients_per_batch < rule.MOST_AT_ONCE
    heavier, _ = chosen({"executor": "vectorized"}, training={"optimizer": "adamw", "batch_size": 4})
    assert heavier.clients_per_batch < tight.clients_per_batch, "its state takes room"
    monkeypatch.setattr(rule, "BUDGET", 1)
    assert chosen({"executor": "vectorized"})[0].clients_per_batch == 2


@linux_only
def test_the_executor_is_of_the_kind_that_was_settled(monkeypatch):
    for execution, kind in (
        ({"executor": "serial"}, InProcess),
        ({"executor": "vectorized", "clients_per_batch": 4}, InProcess),
        ({"executor": "processes", "workers": 3}, ForkedExecutor),
    ):
        executor = made(execution)
        assert type(executor) is kind
        executor.close()
    for workers, cohort, count in ((3, 6, 3), (20, 6, 6), (None, 6, 4), (None, 2, 2)):
        monkeypatch.setattr(executor_parts, "cores", lambda: 4)
        executor = made({"executor": "processes", "workers": workers}, cohort=cohort)
        assert len(executor._workers) == count
        executor.close()


@pytest.mark.parametrize(
    ("execution", "over", "message"),
    [
        (
            {"executor": "serial", "clients_per_batch": 2},
            {},
            "clients_per_batch: got 2; expected 1 with executor=serial.*Use vect",
        ),
        (
            {"executor": "vectorized", "clients_per_batch": 1},
            {},
            "clients_per_batch: got 1; expected 2 or more",
        ),
        (
            {"executor": "processes"},
            {"threads": 2},
            "executor: got 'processes'; .*one thread; leave threads=1",
        ),
        ({"executor": "vectorized", "engine": "compiled"}, {}, "engine: got 'compiled'; expected torch with"),
        ({"executor": "vectorized", "compile": "default"}, {}, "compile: got 'default'; expected none with"),
        ({"engine": "compiled", "compile": "default"}, {}, "compile: got 'default'; expected none with"),
        (
            {"engine": "compiled", "precision": "bfloat16"},
            {},
            "precision: got 'bfloat16'; expected float32 with",
        ),
    ],
    ids=["serial", "vectorized", "threads", "compiled", "compile at once", "compile C++", "precision C++"],
)
def test_settings_that_contradict_each_other_are_refused(execution, over, message):
    with pytest.raises(InputError, match=f"execution.{message}"):
        chosen(execution, **over)


def test_processes_are_refused_on_a_gpu_and_off_linux(monkeypatch):
    config = settings_of({"executor": "processes"})
    population, trainer = parts_of(config)
    with pytest.raises(InputError, match=r"execution.executor: got 'processes'; .*GPU.*vectorized"):
        choose_function(
            config.model_copy(update={"device": "cuda"}), *with_steps(config, population, trainer)
        )
    monkeypatch.setattr(processes.sys, "platform", "darwin")
    with pytest.raises(InputError, match=r"execution.executor: got 'processes'; .*Linux only"):
        choose_function(config, *with_steps(config, population, trainer))


@linux_only
@pytest.mark.parametrize(
    ("execution", "refused"),
    [
        ({"executor": "vectorized"}, "executor: got 'vectorized'; expected serial or processes"),
        ({"executor": "processes", "clients_per_batch": 3}, "clients_per_batch: got 3; expected 1"),
        ({"executor": "auto", "clients_per_batch": 3}, "clients_per_batch: got 3; expected 1"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: nn.BatchNorm1d(5), r"running statistics \(1.running_mean\)"),
        (lambda: nn.BatchNorm1d(5, track_running_stats=False), r"normalises over the batch \(1\)"),
        (lambda: nn.Dropout(0.5), "it draws random numbers in training"),
    ],
    ids=["BatchNorm", "BatchNorm without statistics", "dropout"],
)
def test_a_model_that_cannot_be_vectorised_is_refused_by_the_setting_that_was_given(
    execution, refused, layer, reason
):
    with pytest.raises(InputError, match=rf"execution\.{refused} for this model: .*{reason}"):
        made(execution, layer())


# --- by a rule, and measured ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("over", "layers", "way", "reason"),
    [
        ({}, (), ("compiled", 6), "a small perceptron"),
        ({"cohort": 1}, (), ("compiled", 1), "a small perceptron"),
        ({"cohort": 10}, (), ("compiled", 8), "a small perceptron"),
        ({"clients": 3000, "cohort": 1000}, (), ("compiled", 250), "a small perceptron"),
        ({"clients": 3000, "cohort": 2000}, (), ("compiled", 256), "a small perceptron"),
        ({"execution": {"engine": "torch"}}, (), ("torch", 6), "a small model"),
        ({"execution": {"precision": "bfloat16"}}, (), ("torch", 6), "a small model"),
        ({}, (nn.Tanh(),), ("torch", 6), "a small model"),
        ({"cohort": 3}, (nn.Tanh(),), ("torch", 1), "the cohort is too small"),
        ({"aggregation": {"rule": "median"}}, (), ("torch", 1), "every client on its own"),
        ({"execution": {"compile": "default"}}, (), ("torch", 1), "execution.compile=default"),
        ({}, (nn.BatchNorm1d(5),), ("torch", 1), "impossible, it keeps running statistics"),
        ({}, (nn.Dropout(0.5),), ("torch", 1), "impossible, .*random"),
        (
            {"client_selection": {"selector": "top", "budget": 1}},
            (),
            ("torch", 6),
            "a small model",
        ),
        ({"execution": {"engine": "compiled"}}, (), ("compiled", 6), "execution.engine=compiled"),
        ({"execution": {"clients_per_batch": 4}}, (), ("torch", 4), "execution.clients_per_batch=4"),
        ({"execution": {"clients_per_batch": 1}}, (), ("torch", 1), "execution.clients_per_batch=1"),
        (
            {"execution": {"engine": "compiled"}, "aggregation": {"rule": "median"}},
            (),
            ("compiled", 1),
            "execution.engine=compiled",
        ),
    ],
    ids=str,
)
@pytest.mark.sweep(quick=3)
def test_what_decides_bits_follows_from_model_and_settings(monkeypatch, over, layers, way, reason):
    """Whatever the clock shows, and however many cores and workers there are."""
    config = settings_of(**{"training": {"batch_size": 64}, **over})
    population, trainer = parts_of(config, *layers)
    draws = random.Random(1)
    monkeypatch.setattr(choose_module, "_timed", lambda call, scale, is_clear: 10 ** draws.uniform(-6, 3))
    found = set()
    for cores in (1, 2, 16):
        monkeypatch.setattr(choose_module, "cores", lambda cores=cores: cores)
        settled, note = choose_function(config, *with_steps(config, population, trainer))
        found.add((settled.execution.engine, settled.execution.clients_per_batch))
        assert re.search(rf"\(.*{reason}.*; measured: .* ms a client\)", note)
    assert found == {way}


def test_long_steps_are_not_trained_at_once(monkeypatch):
    config = settings_of({"engine": "torch"})
    population, trainer = parts_of(config)
    assert rule.way_of(config, *with_steps(config, population, trainer)).clients_per_batch == 6
    monkeypatch.setitem(rule.SMALL, "cpu", 1.0)
    way = rule.way_of(config, *with_steps(config, population, trainer))
    assert (way.engine, way.clients_per_batch) == ("torch", 1)
    assert "too long to gain" in way.reason


def test_large_perceptrons_are_not_compiled(monkeypatch):
    config = settings_of()
    monkeypatch.setattr(rule, "MOST_COMPILED", 1.0)
    assert rule.way_of(config, *with_steps(config, *parts_of(config))).engine == "torch"


def test_where_memory_is_short_for_several_clients_each_is_trained_alone(monkeypatch):
    config = settings_of({"engine": "torch"})
    population, trainer = parts_of(config)
    monkeypatch.setattr(rule, "BUDGET", 1)
    assert "no room" in rule.way_of(config, *with_steps(config, population, trainer)).reason


def test_documented_federations_go_the_way_that_they_went():
    for preset in ("quickstart", "digits", "topics"):
        config = load_config(preset)
        assert (config.execution.clients_per_batch, config.execution.engine) == (1, None)
        assert choose_module._as_given(config, None).engine == "torch"
    million = parse_config(
        {
            "task": "classification",
            "clients": 1_000_000,
            "cohort": 1000,
            "data": {"source": "synthetic", "synthetic": {"features": 64, "fewest": 20, "most": 40}},
            "model": {"hidden": [64, 64, 64]},
            "training": {"batch_size": 10, "local_steps": 2, "clip_norm": None},
        }
    )
    way = rule.way_of(million, *with_steps(million, *parts_of(million)))
    assert way.engine == "compiled"
    # Four lanes of 250 clients, as with 256 in a call.
    settled = million.execution.model_copy(update={"clients_per_batch": way.clients_per_batch})
    assert [len(lane.clients) for lane in cut(1, range(1000), settled.lanes, settled.clients_per_batch)] == [
        250
    ] * 4


@pytest.mark.parametrize(("seconds", "calls"), [(20.0, 1), (0.5, 3)], ids=["clear", "unclear"])
def test_one_call_is_enough_where_its_time_leaves_no_doubt(monkeypatch, seconds, calls):
    """Of 50 rounds that take 20 s, a twentieth would be worth workers too; of 0.5 s not."""
    made, clock = [], itertools.count(0.0, seconds / (50 * 6))
    monkeypatch.setattr(choose_module.time, "perf_counter", lambda: next(clock))
    config = settings_of({"engine": "torch", "clients_per_batch": 1}, rounds=50)

    def is_clear(first):
        return choose_module._worth_workers(first / choose_module.COLD, config)

    found = choose_module._timed(lambda: made.append(1), 1.0, is_clear)
    assert (found, len(made)) == (pytest.approx(seconds / (50 * 6)), calls)


@linux_only
def test_several_cores_share_a_cohort_worth_it(timed):
    timed(6 * 0.02, cores=3)
    found, note = chosen({"engine": "torch", "clients_per_batch": 1}, rounds=50)
    assert (name_of(found), found.clients_per_batch) == ("processes", 1)
    assert note.startswith(
        "executor: processes, 3 workers (execution.clients_per_batch=1; measured: 120 ms a client)"
    )
    found, note = chosen(rounds=50, clients=3000, cohort=1000)
    assert (name_of(found), found.engine, found.clients_per_batch) == ("processes", "compiled", 250)
    assert "processes, 3 workers, 250 clients in one compiled call" in note
    found, note = chosen(rounds=50)
    assert (name_of(found), found.clients_per_batch) == ("serial", 6), "there is one lane only"


def test_one_process_does_where_there_is_one_core(timed):
    timed(6 * 0.02, cores=1)
    assert name_of(chosen(None, nn.Tanh(), rounds=50)[0]) == "vectorized"
    assert name_of(chosen(rounds=50)[0]) == "serial"


@linux_only
def test_short_rounds_and_short_runs_are_not_worth_processes(timed):
    timed(0.001, cores=3)
    assert name_of(chosen({"clients_per_batch": 1}, rounds=1000)[0]) == "serial"
    timed(0.005, cores=3)
    assert name_of(chosen({"clients_per_batch": 1}, rounds=2)[0]) == "serial"


@linux_only
@pytest.mark.parametrize("cohort", [1, 6])
def test_a_time_limit_for_clients_needs_processes(timed, monkeypatch, cohort):
    timed(0.0001)
    settled, _ = chosen({"client_seconds": 5.0}, cohort=cohort)
    assert name_of(settled) == "processes"
    for executor in ("serial", "vectorized"):
        with pytest.raises(
            InputError, match=rf"client_seconds.*null with executor={executor}.*Use processes"
        ):
            chosen({"executor": executor, "client_seconds": 5.0})
    monkeypatch.setattr(processes, "why_not", lambda device, threads: "not here")
    with pytest.raises(InputError, match=r"client_seconds.*null with executor="):
        chosen({"client_seconds": 5.0}, cohort=cohort)


def test_where_processes_cannot_be_used_they_are_not_chosen(timed):
    timed(0.015, cores=8)
    assert name_of(chosen({"clients_per_batch": 1}, rounds=50, threads=2)[0]) == "serial"


@pytest.mark.parametrize("executor", ["auto", "serial"])
@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.5)], ids=lambda x: type(x).__name__
)
def test_a_model_without_a_kernel_is_refused_with_the_reason(executor, layer):
    with pytest.raises(InputError, match=r"execution.engine: .*expected torch for this model: layer 1 is"):
        made({"executor": executor, "engine": "compiled"}, layer)


# --- no trace ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Identity()], ids=str)
@pytest.mark.parametrize("execution", [{}, {"executor": "vectorized"}], ids=str)
def test_to_choose_draws_nothing_and_leaves_the_model_as_it_was(execution, layer):
    config = settings_of(execution, training={"batch_size": 64})
    population, trainer = parts_of(config, layer)
    start, buffers = (
        trainer.layout.flatten(trainer.task.model),
        trainer.layout.flatten_buffers(trainer.task.model),
    )
    own = population.train(0)
    expected = trainer.train(start, buffers, own, 1, 0).params.clone()
    before = torch.get_rng_state()
    choose_function(config, *with_steps(config, population, trainer))
    assert torch.equal(torch.get_rng_state(), before)
    found = trainer.train(start, buffers, own, 1, 0)
    assert torch.equal(found.params, expected)


class Broken:
    """A population of which some clients cannot be asked."""

    def __init__(self, inner, bad):
        self.inner, self.bad = inner, bad

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def train(self, client):
        if client in self.bad:
            raise OSError("unplugged")
        return self.inner.train(client)


@pytest.mark.parametrize("execution", [{}, {"executor": "vectorized"}], ids=str)
@pytest.mark.parametrize("bad", [range(15), range(30)], ids=["half", "all"])
def test_clients_that_raise_are_the_rounds_business(execution, bad):
    config = settings_of({**execution, "client_errors": "drop"})
    population, trainer = parts_of(config)
    settled, _ = choose_function(config, *with_steps(config, Broken(population, bad), trainer))
    steps = make_steps(settled, trainer, population)
    executor = make_executor(settled, Broken(population, bad), trainer, steps)
    executor.close()
    assert settled.execution.clients_per_batch is not None


# --- once ----------------------------------------------------------------------------------------


def test_what_was_chosen_is_written_and_repeated_from_the_files(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "fedtlu_fast"):
        simulate(settings_of({"engine": "torch"}), tmp_path / "out")
    assert any("executor: vectorized" in line for line in caplog.messages)
    written = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert written["execution"]["executor"] == "vectorized"
    assert written["execution"]["clients_per_batch"] == 6
    simulate(parse_config(written), tmp_path / "again")
    assert left(tmp_path / "again") == left(tmp_path / "out")


@linux_only
def test_a_run_has_the_same_bits_twice_whatever_the_clock_showed(timed, tmp_path):
    for name, seconds in {"slow": 9.0, "fast": 1e-6}.items():
        timed(seconds)
        simulate(settings_of(cohort=20, rounds=2), tmp_path / name)
    chosen = [
        yaml.safe_load((tmp_path / name / "config.yaml").read_text())["execution"]["executor"]
        for name in ("slow", "fast")
    ]
    assert chosen == ["processes", "serial"]
    assert left(tmp_path / "slow") == left(tmp_path / "fast")


def stop(row):
    raise ClientError(1, 1, "enough")


def test_a_resumed_run_keeps_what_was_chosen(tmp_path, monkeypatch):
    simulate(settings_of(), tmp_path / "whole")
    with pytest.raises(ClientError):
        simulate(settings_of(), tmp_path / "broken", callbacks=[stop])
    # Another version of the rule would now choose otherwise.
    monkeypatch.setattr(choose_module, "way_of", lambda *args: pytest.fail("chosen again"))
    simulate(settings_of(), tmp_path / "broken", resume=True)
    assert left(tmp_path / "broken") == left(tmp_path / "whole")


@linux_only
def test_a_resumed_run_may_be_worked_on_by_others(tmp_path):
    """Who trains does not change the result; how many are trained at once does."""
    simulate(settings_of({"engine": "torch"}), tmp_path / "whole")
    for name, execution in {
        "processes": {"executor": "processes", "workers": 2, "clients_per_batch": 6},
        "vectorized": {"executor": "vectorized", "clients_per_batch": 6},
    }.items():
        with pytest.raises(ClientError):
            simulate(settings_of({"engine": "torch"}), tmp_path / name, callbacks=[stop])
        simulate(settings_of(execution), tmp_path / name, resume=True)
        assert left(tmp_path / name) == left(tmp_path / "whole")
    with pytest.raises(InputError):
        simulate(settings_of({"executor": "serial"}), tmp_path / "vectorized", resume=True)
