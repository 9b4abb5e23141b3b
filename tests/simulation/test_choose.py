"""Which executor a run gets: the one named, or the one measured best; chosen once."""

import logging
import sys

import pytest
import torch
import yaml
from federations import left
from torch import nn

from fedtlu_fast import InputError, simulate
from fedtlu_fast.clients.compiled import CannotCompileError
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.errors import ClientError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.settings import parse_config
from fedtlu_fast.simulation.executors import choose as choose_function
from fedtlu_fast.simulation.executors import make_executor, processes
from fedtlu_fast.simulation.executors.executor import InProcess
from fedtlu_fast.simulation.executors.processes import Processes
from fedtlu_fast.simulation.parts import make_parts
from fedtlu_fast.tasks.classification import Classification

# The package exports the function of the same name.
choose_module = sys.modules["fedtlu_fast.simulation.executors.choose"]
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
    return parts.population, LocalTrainer(task, layout, config.training, config.seed)


def chosen(execution=None, *extra, **over):
    """The settled execution settings, and why."""
    config = settings_of(execution, **over)
    settled, note = choose_function(config, *parts_of(config, *extra))
    unsettled = {"executor", "at_once", "engine"}
    assert settled.execution.model_dump(exclude=unsettled) == config.execution.model_dump(exclude=unsettled)
    assert settled.model_dump(exclude={"execution"}) == config.model_dump(exclude={"execution"})
    return settled.execution, note


def made(execution, *extra, **over):
    config = settings_of(execution, **over)
    population, trainer = parts_of(config, *extra)
    settled, _ = choose_function(config, population, trainer)
    return make_executor(settled, population, trainer)


@pytest.fixture
def timed(monkeypatch):
    """Has measurements give the seconds that a test wants: of one client, of as many compiled as go into a
    call (left out unless `compiled`), and of many at once together."""

    def refuse(*args):
        raise CannotCompileError("the test does not want it")

    def script(*seconds, cores=4, compiled=False):
        left_over = list(seconds)

        def fake(call):
            call()
            return left_over.pop(0)

        monkeypatch.setattr(choose_module, "_timed", fake)
        monkeypatch.setattr(choose_module, "cores", lambda: cores)
        if not compiled:
            monkeypatch.setattr(choose_module, "_try_compiled", refuse)
        return left_over

    return script


@pytest.fixture
def unmeasured(monkeypatch):
    def fail(call):
        raise AssertionError("it was measured")

    monkeypatch.setattr(choose_module, "_timed", fail)


# --- named ---------------------------------------------------------------------------------------


@linux_only
@pytest.mark.parametrize(
    ("execution", "at_once"),
    [
        ({"executor": "serial"}, 1),
        ({"executor": "serial", "at_once": 1}, 1),
        ({"executor": "vectorized", "at_once": 3}, 3),
        ({"executor": "processes"}, 1),
        ({"executor": "processes", "at_once": 5, "workers": 2}, 5),
        ({"executor": "serial", "engine": "torch"}, 1),
        ({"executor": "serial", "engine": "compiled"}, 6),
        ({"executor": "serial", "engine": "compiled", "at_once": 2}, 2),
        ({"executor": "processes", "engine": "compiled", "at_once": 1}, 1),
    ],
    ids=str,
)
def test_a_named_executor_is_taken_without_a_measurement(unmeasured, execution, at_once):
    found, note = chosen(execution)
    assert found.engine == execution.get("engine", "torch")
    assert (found.executor, found.at_once, note) == (execution["executor"], at_once, "")


def test_vectorized_takes_what_fits(unmeasured, monkeypatch):
    found, _ = chosen({"executor": "vectorized"})
    assert found.at_once == choose_module.MOST_AT_ONCE
    monkeypatch.setattr(choose_module, "BUDGET", 40_000)
    tight, _ = chosen({"executor": "vectorized"})
    assert 2 < tight.at_once < choose_module.MOST_AT_ONCE
    heavier, _ = chosen({"executor": "vectorized"}, training={"optimizer": "adamw", "batch_size": 4})
    assert heavier.at_once < tight.at_once, "its state takes room"
    monkeypatch.setattr(choose_module, "BUDGET", 1)
    assert chosen({"executor": "vectorized"})[0].at_once == 2


@linux_only
def test_the_executor_is_of_the_kind_that_was_settled(monkeypatch):
    for execution, kind in (
        ({"executor": "serial"}, InProcess),
        ({"executor": "vectorized", "at_once": 4}, InProcess),
        ({"executor": "processes", "workers": 3}, Processes),
    ):
        executor = made(execution)
        assert type(executor) is kind
        executor.close()
    for workers, cohort, count in ((3, 6, 3), (20, 6, 6), (None, 6, 4), (None, 2, 2)):
        monkeypatch.setattr(choose_module, "cores", lambda: 4)
        executor = made({"executor": "processes", "workers": workers}, cohort=cohort)
        assert len(executor._workers) == count
        executor.close()


@pytest.mark.parametrize(
    ("execution", "over", "message"),
    [
        (
            {"executor": "serial", "at_once": 2},
            {},
            "at_once: got 2; expected 1 with executor=serial.*Use vect",
        ),
        ({"executor": "vectorized", "at_once": 1}, {}, "at_once: got 1; expected 2 or more"),
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
        choose_function(config.model_copy(update={"device": "cuda"}), population, trainer)
    monkeypatch.setattr(processes.sys, "platform", "darwin")
    with pytest.raises(InputError, match=r"execution.executor: got 'processes'; .*Linux only"):
        choose_function(config, population, trainer)


@linux_only
@pytest.mark.parametrize(
    "execution", [{"executor": "vectorized"}, {"executor": "processes", "at_once": 3}], ids=str
)
@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: nn.BatchNorm1d(5), r"running statistics \(1.running_mean\)"),
        (lambda: nn.BatchNorm1d(5, track_running_stats=False), r"normalises over the batch \(1\)"),
        (lambda: nn.Dropout(0.5), "random"),
    ],
    ids=["BatchNorm", "BatchNorm without statistics", "dropout"],
)
def test_a_model_that_cannot_be_vectorised_is_refused_with_the_reason(execution, layer, reason):
    with pytest.raises(
        InputError, match=rf"execution.at_once: .*expected 1 for this model: .*{reason}.*serial"
    ):
        made(execution, layer())


# --- measured ------------------------------------------------------------------------------------


def test_many_at_once_are_taken_when_that_is_clearly_faster(timed):
    over = timed(0.006, 6 * 0.001, cores=1)
    found, note = chosen()
    assert over == []
    assert (found.executor, found.at_once) == ("vectorized", 6)
    assert "6 ms a client one after another" in note
    assert "1 ms with 6 at once" in note
    assert note.startswith("executor: vectorized, 6 clients at once")


def test_a_compiled_perceptron_is_taken_when_that_is_clearly_faster(timed):
    over = timed(0.006, 6 * 0.0005, "not asked for", cores=1, compiled=True)
    found, note = chosen()
    assert over == ["not asked for"]
    assert (found.executor, found.engine, found.at_once) == ("serial", "compiled", 6)
    assert note.startswith("executor: serial, 6 clients in one compiled call")
    assert "0.5 ms compiled" in note


def test_bfloat16_is_never_compiled_and_never_taken_unasked(timed):
    left = timed(0.006, 6 * 0.0005, cores=1, compiled=True)
    found, note = chosen({"precision": "bfloat16"})
    assert (found.executor, found.engine, found.at_once, left) == ("vectorized", "torch", 6, [])
    assert "compiled" not in note
    timed(0.006, 6 * 0.0005, cores=1)
    assert chosen()[0].precision == "float32"


def test_a_perceptron_is_not_compiled_for_a_small_gain(timed):
    timed(0.006, 6 * 0.005, 6 * 0.001, cores=1, compiled=True)
    found, note = chosen()
    assert (found.executor, found.engine, found.at_once) == ("vectorized", "torch", 6)
    assert "5 ms compiled; 1 ms with 6 at once" in note


@linux_only
def test_several_cores_share_what_is_compiled(timed):
    timed(0.02, 2 * 0.01, cores=3, compiled=True)
    found, note = chosen(rounds=50)
    assert (found.executor, found.engine, found.at_once) == ("processes", "compiled", 2)
    assert "processes, 3 workers, 2 clients in one compiled call" in note


def test_an_engine_that_was_given_is_kept(timed):
    # Much slower: but it decides the last bits, and so is the caller's.
    timed(6 * 0.9, cores=1, compiled=True)
    found, _ = chosen({"engine": "compiled"})
    assert (found.executor, found.engine, found.at_once) == ("serial", "compiled", 6)
    timed(0.006, 6 * 0.001, cores=1, compiled=True)
    found, _ = chosen({"engine": "torch"})
    assert (found.executor, found.engine, found.at_once) == ("vectorized", "torch", 6)


def test_a_robust_rule_gets_compiled_clients_one_by_one(timed):
    timed(0.001, cores=1, compiled=True)
    found, _ = chosen({"engine": "compiled"}, aggregation={"rule": "median"})
    assert (found.executor, found.engine, found.at_once) == ("serial", "compiled", 1)


@pytest.mark.parametrize("executor", ["auto", "serial"])
@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.5)], ids=lambda x: type(x).__name__
)
def test_a_model_without_a_kernel_is_refused_with_the_reason(executor, layer):
    with pytest.raises(InputError, match=r"execution.engine: .*expected torch for this model: layer 1 is"):
        made({"executor": executor, "engine": "compiled"}, layer)


def test_noise_does_not_choose(timed):
    timed(0.006, 6 * 0.0045, cores=1)
    found, note = chosen()
    assert (found.executor, found.at_once) == ("serial", 1)
    assert note.startswith("executor: serial (measured")


@linux_only
def test_several_cores_share_a_cohort_worth_it(timed):
    timed(0.015, 2 * 0.015, cores=3)
    found, note = chosen(rounds=50)
    assert (found.executor, found.at_once) == ("processes", 1)
    assert "processes, 3 workers" in note
    timed(0.015, 2 * 0.003, cores=3)
    found, note = chosen(rounds=50)
    assert (found.executor, found.at_once) == ("processes", 2), "each of three gets two of six"
    assert "2 clients at once" in note


@linux_only
def test_short_rounds_and_short_runs_are_not_worth_processes(timed):
    timed(0.001, 2 * 0.001, cores=3)
    assert chosen(rounds=1000)[0].executor == "serial"
    timed(0.005, 2 * 0.005, cores=3)
    assert chosen(rounds=2)[0].executor == "serial"


@linux_only
@pytest.mark.parametrize("cohort", [1, 6])
def test_a_time_limit_for_clients_needs_processes(timed, monkeypatch, cohort):
    timed(0.0001, 1.0)
    settled, _ = chosen({"client_seconds": 5.0}, cohort=cohort)
    assert settled.executor == "processes"
    for executor in ("serial", "vectorized"):
        with pytest.raises(
            InputError, match=rf"client_seconds.*null with executor={executor}.*Use processes"
        ):
            chosen({"executor": executor, "client_seconds": 5.0})
    timed(0.0001, 1.0)
    monkeypatch.setattr(processes, "why_not", lambda device, threads: "not here")
    with pytest.raises(InputError, match=r"client_seconds.*null with executor="):
        chosen({"client_seconds": 5.0}, cohort=cohort)


def test_where_processes_cannot_be_used_they_are_not_chosen(timed):
    timed(0.015, 6 * 0.015, cores=8)
    assert chosen(rounds=50, threads=2)[0].executor == "serial"


def test_long_steps_are_not_tried_at_once(timed):
    over = timed(9.0, "not asked for", cores=1)
    found, note = chosen()
    assert (found.executor, found.at_once) == ("serial", 1)
    assert over == ["not asked for"]
    assert "too long to gain" in note


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_number_at_once_that_was_given_is_kept(timed, at_once):
    # Much slower: but it decides the last bits, and so is the caller's.
    timed(0.001, 4 * 0.9, cores=1)
    found, _ = chosen({"at_once": at_once})
    assert found.at_once == at_once
    assert found.executor == ("vectorized" if at_once > 1 else "serial")


def test_a_cohort_of_one_is_not_tried_at_once(timed):
    timed(0.001, "not asked for", cores=1)
    found, note = chosen(cohort=1)
    assert (found.executor, found.at_once) == ("serial", 1)
    assert "too small" in note


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(5), nn.Dropout(0.5)], ids=["BatchNorm", "dropout"])
def test_a_model_that_cannot_be_vectorised_is_trained_one_by_one_and_the_note_says_why(timed, layer):
    timed(0.001, "not asked for", cores=1)
    found, note = chosen(None, layer, training={"batch_size": 64})
    assert (found.executor, found.at_once) == ("serial", 1)
    assert "several at once: impossible" in note
    assert ("running statistics" if isinstance(layer, nn.BatchNorm1d) else "random") in note


def test_a_tiny_perceptron_is_trained_many_at_once():
    """Measured for once: 32 clients in a call are some thirty times faster, and 1.5 times would do."""
    found, note = chosen(cohort=32, clients=64)
    assert found.at_once > 1
    assert found.engine == "compiled"
    assert "measured" in note


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
    choose_function(config, population, trainer)
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
    settled, _ = choose_function(config, Broken(population, bad), trainer)
    executor = make_executor(settled, Broken(population, bad), trainer)
    executor.close()
    assert settled.execution.at_once is not None


# --- once ----------------------------------------------------------------------------------------


def test_what_was_chosen_is_written_and_repeated_from_the_files(timed, tmp_path, caplog):
    timed(0.006, 6 * 0.001, cores=1)
    with caplog.at_level(logging.INFO, "fedtlu_fast"):
        simulate(settings_of(), tmp_path / "out")
    assert any("executor: vectorized" in line for line in caplog.messages)
    written = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert written["execution"]["executor"] == "vectorized"
    assert written["execution"]["at_once"] == 6
    simulate(parse_config(written), tmp_path / "again")
    assert left(tmp_path / "again") == left(tmp_path / "out")


def test_a_resumed_run_keeps_what_was_chosen(timed, tmp_path, monkeypatch):
    timed(0.006, 6 * 0.001, cores=1)
    simulate(settings_of(), tmp_path / "whole")
    timed(0.006, 6 * 0.001, cores=1)

    def stop(row):
        raise ClientError(1, 1, "enough")

    with pytest.raises(ClientError):
        simulate(settings_of(), tmp_path / "broken", observer=stop)
    # A measurement would now choose otherwise.
    over = timed(0.001, 6.0, cores=1)
    simulate(settings_of(), tmp_path / "broken", resume=True)
    assert over == [0.001, 6.0]
    assert left(tmp_path / "broken") == left(tmp_path / "whole")


@linux_only
def test_a_resumed_run_may_be_worked_on_by_others(timed, tmp_path):
    """Who trains does not change the result; how many are trained at once does."""
    timed(0.006, 6 * 0.001, cores=1)
    simulate(settings_of(), tmp_path / "whole")
    for name, execution in {
        "processes": {"executor": "processes", "workers": 2, "at_once": 6},
        "vectorized": {"executor": "vectorized", "at_once": 6},
    }.items():
        timed(0.006, 6 * 0.001, cores=1)

        def stop(row):
            raise ClientError(1, 1, "enough")

        with pytest.raises(ClientError):
            simulate(settings_of(), tmp_path / name, observer=stop)
        simulate(settings_of(execution), tmp_path / name, resume=True)
        assert left(tmp_path / name) == left(tmp_path / "whole")
    with pytest.raises(InputError):
        simulate(settings_of({"executor": "serial"}), tmp_path / "vectorized", resume=True)
