"""Who trains does not change what comes out; what clients that fail and workers that die cost."""

import gc
import logging
import mmap
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.federations import left, timeless, tiny
from support.sampling import examples
from torch import nn

from fedtlu_fast import simulate
from fedtlu_fast.aggregation import WeightedMean
from fedtlu_fast.build.executor import make_executor
from fedtlu_fast.build.parts import make_parts
from fedtlu_fast.build.server import make_server
from fedtlu_fast.build.steps import make_steps
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.config import ExecutionConfig
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.data.population import Samples
from fedtlu_fast.data.sources.synthetic import SyntheticPopulation
from fedtlu_fast.errors import ClientError, InputError, WorkerError
from fedtlu_fast.executors import patience, processes, shared_memory
from fedtlu_fast.executors.lane_trainer import LaneTrainer
from fedtlu_fast.executors.lanes import ClientReports, Lane, cut
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.machine import Room
from fedtlu_fast.participation.cohort import sample_cohort
from fedtlu_fast.simulation.records import metrics_row
from fedtlu_fast.simulation.round import run_round
from fedtlu_fast.simulation.server import initial_state
from fedtlu_fast.tasks.classification import Classification

CLIENTS, COHORT, ROUNDS = 40, 7, 3
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are forked")


def settings_of(execution, **over):
    tree = {
        "task": "classification",
        "clients": CLIENTS,
        "cohort": COHORT,
        "rounds": ROUNDS,
        "data": {"source": "synthetic", "classes": 4, "synthetic": {"features": 6, "fewest": 4, "most": 15}},
        "model": {"hidden": [5]},
        "training": {"lr": 0.1, "batch_size": 4, "momentum": 0.5},
        "selection": {"selector": "full"},
        "evaluation": {"trained_clients": 0, "local_clients": 5, "local_every": 1},
        "execution": execution,
    }
    return parse_config({**tree, **over})


def children():
    """Processes that this one started and has not waited for, zombies included."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                found.append(int(folder.name))
    return set(found)


def alive(pid):
    """Whether it runs; a zombie that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def lanes_of(index, cohort, execution):
    return cut(index, cohort, execution.lanes, execution.clients_per_batch or 1)


class Federation:
    """Rounds of a small federation, whose population may be wrapped and whose model may be replaced."""

    def __init__(self, executor="serial", wrap=None, model=None, config=None, **execution):
        self.config = config or settings_of({"executor": executor, "clients_per_batch": 1, **execution})
        parts = make_parts(self.config)
        trainer, steps = parts.trainer, parts.steps
        if model is not None:
            torch.manual_seed(0)
            task = Classification(model())
            layout = ParameterLayout.from_module(task.model)
            trainer = LocalTrainer(task, layout, self.config.training.local, self.config.seed)
            steps = make_steps(self.config, trainer, parts.population)
        self.trainer = trainer
        self.state = initial_state(trainer.layout, trainer.task.model)
        self.population = wrap(parts.population) if wrap else parts.population
        self.executor = make_executor(self.config, self.population, trainer, steps)
        self.server = make_server(self.config, trainer.layout, self.population, trainer, self.executor, steps)

    def round(self):
        """The next round; its row of metrics.jsonl."""
        self.state, record = run_round(self.server, self.state)
        return metrics_row(self.server, self.state, record)

    def rounds(self, count=ROUNDS):
        return [self.round() for _ in range(count)]

    def outcome(self, count=ROUNDS):
        """All that must not depend on who trains."""
        told = self.rounds(count)
        return told, self.state.params.clone(), self.state.buffers.clone()

    def cohort(self, index=1):
        return sample_cohort(self.config.seed, index, self.config.clients, self.config.cohort)

    def lanes(self, index=1):
        return lanes_of(index, self.cohort(index), self.config.execution)

    def results(self, index=1):
        return self.executor.train((self.state.params, self.state.buffers), self.lanes(index))

    def by_hand(self, clients, index=1):
        """Parameters after a round in which only these clients took part, one after another."""
        base, buffers = self.state.params, self.state.buffers
        mean = WeightedMean(base)
        for client in clients:
            own = self.trainer.train(base, buffers, self.population.train(client), index, client)
            mean.add_(own.params, own.samples)
        return base + mean.change()

    @property
    def workers(self):
        return [worker for worker in self.executor._workers if worker is not None]

    def pids(self):
        return [worker.process.pid for worker in self.workers]

    def kill(self, *which):
        for index in which or range(len(self.workers)):
            os.kill(self.workers[index].process.pid, signal.SIGKILL)


@pytest.fixture(autouse=True)
def _one_thread():
    """As a run has it; workers have one anyway, and torch's last bits may depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def federation():
    """Makes federations; at the end their workers have to be gone."""
    made, before = [], children()

    def make(*args, **over):
        made.append(Federation(*args, **over))
        return made[-1]

    yield make
    for own in made:
        own.executor.close()
    assert children() <= before


def same(one, two):
    assert one[0] == two[0]
    assert torch.equal(one[1], two[1])
    assert torch.equal(one[2], two[2])


class Wrapped:
    """A population, and what happens when one of its clients is asked for its samples."""

    def __init__(self, inner, happen):
        self.inner, self.happen = inner, happen

    clients = property(lambda self: self.inner.clients)
    test = property(lambda self: self.inner.test)
    fingerprint = property(lambda self: self.inner.fingerprint)

    def train(self, client):
        return self.happen(client, self.inner.train(client))

    def held_out(self, client):
        return self.inner.held_out(client)

    def to(self, device):
        return self


def happening(happen):
    return lambda inner: Wrapped(inner, happen)


class Flags:
    """Numbers that this process and its workers share."""

    def __init__(self):
        self.numbers = np.frombuffer(mmap.mmap(-1, 8 * 64), np.int64)

    def once(self, place=0):
        """True for the first who asks."""
        self.numbers[place] += 1
        return self.numbers[place] == 1


def first_cohort():
    return sample_cohort(0, 1, CLIENTS, COHORT)


def worker_only(action):
    """Does something in workers only."""
    parent = os.getpid()

    def happen(client, samples):
        if os.getpid() != parent:
            action(client)
        return samples

    return happening(happen)


# --- lanes ---------------------------------------------------------------------------------------


@examples(200)
@given(
    st.lists(st.integers(0, 10**12), min_size=1, max_size=150, unique=True),
    st.integers(1, 200),
    st.none() | st.integers(1, 200),
)
def test_lanes_are_the_cohort_cut_in_order(cohort, lanes, clients_per_batch):
    config = ExecutionConfig(lanes=lanes, clients_per_batch=clients_per_batch)
    found = lanes_of(4, cohort, config)
    assert [client for lane in found for client in lane.clients] == cohort
    assert [lane.index for lane in found] == list(range(len(found)))
    assert {lane.round for lane in found} == {4}
    sizes = [len(lane.clients) for lane in found]
    assert 1 <= min(sizes) <= max(sizes) <= min(sizes) + 1
    assert len(found) <= lanes
    assert len(found) == min(lanes, -(-len(cohort) // (clients_per_batch or 1)))
    assert all(isinstance(client, int) for lane in found for client in lane.clients)


def test_lanes_do_not_depend_on_who_works_on_them():
    cohort = list(range(50))
    plans = {
        tuple(lanes_of(1, cohort, ExecutionConfig(executor=e, workers=w)))
        for e in ("serial", "processes")
        for w in (1, 7)
    }
    assert len(plans) == 1


def test_reports_tell_failed_refused_and_accepted_clients_apart():
    reports, other = ClientReports(), ClientReports()
    reports.add(5, 10, 1.0, True)
    reports.add(6, 99, float("nan"), False)
    other.fail(7, "ValueError: 'no'")
    other.add(8, 30, 3.0, True)
    reports.extend(other)
    assert reports.clients == [5, 6, 7, 8]
    assert (reports.refused, reports.failed) == ([6], {7: "ValueError: 'no'"})
    assert reports.total == 40
    assert reports.loss == pytest.approx((10 * 1.0 + 30 * 3.0) / 40)
    assert np.isnan(ClientReports().loss)


# --- the same bits -------------------------------------------------------------------------------


@linux_only
@pytest.mark.parametrize("lanes", [1, 3, 64])
def test_processes_give_the_bits_of_one_client_after_another(federation, lanes):
    expected = federation(lanes=lanes).outcome()
    for workers in (1, 2, 3):
        same(federation("processes", lanes=lanes, workers=workers).outcome(), expected)


@linux_only
@pytest.mark.parametrize("lanes", [1, 2, 64])
@pytest.mark.parametrize("clients_per_batch", [2, 3, 20])
def test_processes_give_the_bits_of_vectorized_training(federation, lanes, clients_per_batch):
    expected = federation("vectorized", lanes=lanes, clients_per_batch=clients_per_batch).outcome()
    for workers in (1, 2, 3):
        found = federation(
            "processes", lanes=lanes, workers=workers, clients_per_batch=clients_per_batch
        ).outcome()
        same(found, expected)


@linux_only
@pytest.mark.parametrize("lanes", [1, 3, 64])
@pytest.mark.parametrize("clients_per_batch", [1, 3, 20])
def test_processes_give_the_bits_of_compiled_training(federation, lanes, clients_per_batch):
    compiled = {"lanes": lanes, "engine": "compiled", "clients_per_batch": clients_per_batch}
    expected = federation(**compiled).outcome()
    for workers in (1, 2, 3):
        same(federation("processes", workers=workers, **compiled).outcome(), expected)


@pytest.mark.parametrize("lanes", [1, 3, 64])
@pytest.mark.parametrize("clients_per_batch", [1, 3, 20])
def test_compiled_and_one_after_another_agree_to_rounding(federation, lanes, clients_per_batch):
    rows, params, _ = federation(lanes=lanes).outcome()
    told, found, _ = federation(lanes=lanes, engine="compiled", clients_per_batch=clients_per_batch).outcome()
    torch.testing.assert_close(found, params, rtol=1e-5, atol=2e-6)
    for one, two in zip(rows, told, strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)


@linux_only
@pytest.mark.parametrize("name", ["dropout", "batch norm"])
def test_models_with_a_memory_or_dice_of_their_own_give_the_same_bits(federation, name):
    def model():
        extra = nn.Dropout(0.5) if name == "dropout" else nn.BatchNorm1d(5)
        return nn.Sequential(nn.Linear(6, 5), extra, nn.ReLU(), nn.Linear(5, 4))

    # Whole passes in one batch: BatchNorm refuses one of a single sample.
    training = {"batch_size": 64, "local_steps": 3}
    one, two = (
        settings_of({"executor": executor, "workers": 2, "lanes": 3}, training=training)
        for executor in ("serial", "processes")
    )
    expected = federation(model=model, config=one).outcome()
    assert len(expected[2]) == (10 if name == "batch norm" else 0)
    torch.manual_seed(99)
    found = federation(model=model, config=two).outcome()
    same(found, expected)
    if name == "batch norm":
        assert not torch.equal(found[2], initial_state(*layout_and_model(model)).buffers)


def layout_and_model(model):
    made = model()
    return ParameterLayout.from_module(made), made


@linux_only
def test_language_models_too(text):
    config = tiny(text, cohort=4, training={"local_steps": 2})
    found = {}
    for name, execution in {
        "serial": {"executor": "serial"},
        "processes": {"executor": "processes", "workers": 2},
        "vectorized": {"executor": "vectorized", "clients_per_batch": 4},
        "both": {"executor": "processes", "workers": 2, "clients_per_batch": 4},
    }.items():
        given = config.execution.model_validate(execution)
        found[name] = simulate(config.model_copy(update={"execution": given}))
    for one, two in (("serial", "processes"), ("vectorized", "both")):
        assert found[one].summary["params_sha256"] == found[two].summary["params_sha256"]
        assert timeless(found[one].metrics) == timeless(found[two].metrics)
        assert found[one].selection == found[two].selection
    torch.testing.assert_close(found["vectorized"].params, found["serial"].params, rtol=1e-4, atol=1e-5)
    assert (found["serial"].params - found["vectorized"].params).abs().max() < 1e-4


@pytest.mark.parametrize("lanes", [1, 3, 64])
@pytest.mark.parametrize("clients_per_batch", [2, 3, 20])
def test_at_once_and_one_after_another_agree_to_rounding(federation, lanes, clients_per_batch):
    rows, params, _ = federation(lanes=lanes).outcome()
    told, found, _ = federation("vectorized", lanes=lanes, clients_per_batch=clients_per_batch).outcome()
    torch.testing.assert_close(found, params, rtol=1e-5, atol=2e-6)
    for one, two in zip(rows, told, strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
        assert (two["refused"], two["failed"]) == ([], {})


@linux_only
@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_with_a_lane_for_each_client_the_result_is_the_plain_weighted_mean(federation, executor):
    own = federation(executor, lanes=COHORT, workers=2 if executor == "processes" else None)
    for index in (1, 2):
        expected = own.by_hand(own.cohort(index), index)
        own.round()
        assert torch.equal(own.state.params, expected)


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_fewer_lanes_give_the_weighted_mean_to_rounding(federation, lanes):
    own = federation(lanes=lanes)
    expected = own.by_hand(own.cohort())
    own.round()
    torch.testing.assert_close(own.state.params, expected, rtol=1e-6, atol=1e-7)


@linux_only
def test_global_generators_are_left_alone_here_and_in_workers(federation):
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002

    def check(client, samples):
        assert torch.equal(torch.get_rng_state(), before)
        assert np.array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002
        return samples

    def model():
        return nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.ReLU(), nn.Linear(5, 4))

    made = federation("processes", workers=2, lanes=2)
    made.rounds(2)
    assert torch.equal(torch.get_rng_state(), before)
    own = federation("processes", wrap=happening(check), model=model, workers=2, lanes=2)
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    own.rounds(2)
    assert torch.equal(torch.get_rng_state(), before)


@linux_only
def test_the_global_vectors_are_not_changed_by_whoever_trains(federation):
    for execution in (
        {"executor": "serial"},
        {"executor": "vectorized", "clients_per_batch": 3},
        {"executor": "processes"},
    ):
        own = federation(**execution)
        before = own.state.params.clone()
        for result in own.results():
            assert result.vectors[0] is not own.state.params
        assert torch.equal(own.state.params, before)


# --- clients that fail ---------------------------------------------------------------------------

EXECUTORS = {
    "serial": {"executor": "serial"},
    "vectorized": {"executor": "vectorized", "clients_per_batch": 3},
    "processes": {"executor": "processes", "workers": 2},
    "both": {"executor": "processes", "workers": 2, "clients_per_batch": 3},
    "compiled": {"executor": "serial", "engine": "compiled", "clients_per_batch": 3},
    "compiled one by one": {"executor": "serial", "engine": "compiled"},
    "compiled in processes": {
        "executor": "processes",
        "workers": 2,
        "engine": "compiled",
        "clients_per_batch": 3,
    },
}
everywhere = pytest.mark.parametrize("name", EXECUTORS)


class OddError(Exception):
    """One that cannot be pickled, nor made from its message."""

    def __init__(self, code, text):
        super().__init__(lambda: text)
        self.code = code


def raising(*clients, error=None):
    def happen(client, samples):
        if client in clients:
            raise error or ValueError("its disk is gone")
        return samples

    return happening(happen)


@linux_only
@everywhere
@pytest.mark.parametrize("error", [ValueError("its disk is gone"), OddError(3, "odd")], ids=["plain", "odd"])
def test_a_client_that_raises_stops_the_run_and_is_named(federation, name, error):
    bad = first_cohort()[4]
    own = federation(**EXECUTORS[name], wrap=raising(bad, error=error))
    before = own.state
    with pytest.raises(
        ClientError, match=rf"client {bad} failed in round 1: {type(error).__name__}"
    ) as caught:
        own.round()
    assert (caught.value.client, caught.value.round_index) == (bad, 1)
    assert "resume=True" in str(caught.value)
    assert Path(__file__).name in str(caught.value), "it tells where"
    assert own.state is before
    # The executor is still good for clients that are: those of some later round.
    index = next(k for k in range(2, 99) if bad not in own.cohort(k))
    results = {result.lane.index: result.reports for result in own.results(index)}
    assert all(all(reports.accepted) for reports in results.values())
    assert [c for k in sorted(results) for c in results[k].clients] == own.cohort(index)


@linux_only
@everywhere
@pytest.mark.parametrize("count", [1, 3])
def test_clients_that_raise_are_left_out_and_reported(federation, name, count):
    bad = first_cohort()[1 : 1 + count]
    own = federation(**EXECUTORS[name], wrap=raising(*bad), client_errors="drop")
    good = [client for client in own.cohort() if client not in bad]
    expected = own.by_hand(good)
    row = own.round()
    assert row["failed"] == dict.fromkeys(map(str, bad), "ValueError: 'its disk is gone'")
    assert row["refused"] == []
    assert row["train_loss"] is not None
    if name in ("serial", "processes"):
        assert torch.equal(own.state.params, expected), "the mean of the others, exactly"
    else:
        torch.testing.assert_close(own.state.params, expected, rtol=1e-5, atol=2e-6)


def spoiled(*clients, value=float("nan")):
    def happen(client, samples):
        if client not in clients:
            return samples
        features, labels = samples.pool
        return Samples((features * value, labels), samples.rows)

    return happening(happen)


@linux_only
@everywhere
def test_clients_whose_change_is_no_number_are_refused_in_the_cohorts_order(federation, name):
    cohort = first_cohort()
    bad = [cohort[0], cohort[2], cohort[5]]
    own = federation(**EXECUTORS[name], wrap=spoiled(*bad))
    expected = own.by_hand([client for client in cohort if client not in bad])
    row = own.round()
    assert row["refused"] == bad
    assert row["failed"] == {}
    assert np.isfinite(row["train_loss"])
    if name in ("serial", "processes"):
        assert torch.equal(own.state.params, expected)
    else:
        torch.testing.assert_close(own.state.params, expected, rtol=1e-5, atol=2e-6)


@linux_only
@everywhere
@pytest.mark.parametrize("how", ["raise", "nan"])
def test_when_no_client_is_left_the_model_stays(federation, name, how):
    cohort = first_cohort()
    wrap = raising(*cohort) if how == "raise" else spoiled(*cohort)
    own = federation(**EXECUTORS[name], wrap=wrap, client_errors="drop")
    before = own.state.params.clone()
    row = own.round()
    assert torch.equal(own.state.params, before)
    assert row["train_loss"] is None
    assert len(row["failed" if how == "raise" else "refused"]) == COHORT
    own.round()


@linux_only
@everywhere
def test_one_client_with_a_label_that_is_not_there_does_not_take_the_others_with_it(federation, name):
    bad = first_cohort()[3]

    def happen(client, samples):
        if client != bad:
            return samples
        features, labels = samples.pool
        return Samples((features, labels + 4), samples.rows)

    own = federation(**EXECUTORS[name], wrap=happening(happen), client_errors="drop")
    row = own.round()
    assert list(row["failed"]) == [str(bad)]
    assert np.isfinite(row["train_loss"])


@linux_only
@everywhere
def test_a_run_that_a_client_stopped_is_resumed_to_the_same_result(name, tmp_path, monkeypatch):
    config, before = settings_of(EXECUTORS[name], checkpoint={"every": 1}), children()
    whole = simulate(config, tmp_path / "whole")
    seen = {client for row in whole.selection[:2] for client in row["cohort"]}
    bad = next(client for client in whole.selection[2]["cohort"] if client not in seen)
    train = SyntheticPopulation.train

    def spoilt(self, client):
        if client == bad:
            raise OSError("unplugged")
        return train(self, client)

    with monkeypatch.context() as patch:
        patch.setattr(SyntheticPopulation, "train", spoilt)
        with pytest.raises(ClientError, match=f"client {bad} failed in round 3: OSError: 'unplugged'"):
            simulate(config, tmp_path / "broken")
    assert children() <= before
    simulate(config, tmp_path / "broken", resume=True)
    assert left(tmp_path / "broken") == left(tmp_path / "whole")


# --- workers that die ----------------------------------------------------------------------------


@linux_only
def test_workers_killed_while_they_have_nothing_to_do_are_replaced(federation):
    expected = federation().outcome()
    own = federation("processes", workers=2)
    told = [own.round()]
    pids = own.pids()
    own.kill()
    told.append(own.round())
    own.kill(1)
    until(lambda: not alive(own.pids()[1]))
    told.append(own.round())
    same((told, own.state.params, own.state.buffers), expected)
    assert len({*pids, *own.pids()}) >= 4


def lane_results(own, index=1):
    """Copies of a round's results, and a function to call before each is asked for."""
    return [
        (result.lane, result.single, result.reports, *(vector.clone() for vector in result.vectors))
        for result in own.results(index)
    ]


def same_results(found, expected):
    assert len(found) == len(expected)
    for one, two in zip(found, expected, strict=True):
        assert one[0] == two[0]
        assert one[2] == two[2]
        if one[1] == two[1]:
            assert torch.equal(one[3], two[3])
            assert torch.equal(one[4], two[4])


def interrupted(own, strike):
    """The results of a round in which `strike` happens while a result is being used."""
    found = []
    for number, result in enumerate(own.results()):
        strike(number, result)
        copies = (vector.clone() for vector in result.vectors)
        found.append((result.lane, result.single, result.reports, *copies))
    return found


@linux_only
@pytest.mark.parametrize("lanes", [3, 64])
@pytest.mark.parametrize("clients_per_batch", [1, 2])
def test_workers_killed_after_they_finished_and_before_it_is_used_lose_nothing(
    federation, lanes, clients_per_batch
):
    expected = lane_results(
        federation("processes", workers=1, lanes=lanes, clients_per_batch=clients_per_batch)
    )
    own = federation("processes", workers=2, lanes=lanes, clients_per_batch=clients_per_batch)

    def strike(number, result):
        if number < 2:
            until(lambda: (own.executor._shared.doing[:, 0] == -1).all())
            time.sleep(0.02)
            own.kill()

    same_results(interrupted(own, strike), expected)


@linux_only
def test_workers_killed_in_the_middle_of_a_client_train_it_again_to_the_same_bits(federation):
    flags, slow = Flags(), first_cohort()[3]

    def action(client):
        if client == slow and flags.once():
            time.sleep(60)

    expected = lane_results(federation("processes", workers=1, lanes=3))
    own = federation("processes", wrap=worker_only(action), workers=2, lanes=3)
    results = own.results()
    first = next(results)
    found = [(first.lane, first.single, first.reports, *(vector.clone() for vector in first.vectors))]
    # The flag says that the client has begun; the worker writes whom it trains a little before.
    until(lambda: flags.numbers[0] == 1)
    (victim,) = np.flatnonzero(own.executor._shared.doing[:, 0] == slow)
    own.kill(int(victim))
    for result in results:
        copies = (vector.clone() for vector in result.vectors)
        found.append((result.lane, result.single, result.reports, *copies))
    same_results(found, expected)
    assert flags.numbers[0] == 2


@linux_only
@pytest.mark.parametrize("seed", range(4))
def test_workers_killed_at_any_moment_change_nothing(federation, seed):
    random = np.random.default_rng(seed)
    expected = federation(lanes=5).outcome()
    flags = Flags()

    def action(client):
        # Each client kills its worker at most once, at about every second time.
        if client % 2 == seed % 2 and flags.once(client):
            time.sleep(float(random.random()) * 0.01)
            os.kill(os.getpid(), signal.SIGKILL)

    own = federation("processes", wrap=worker_only(action), workers=1 + seed, lanes=5, retries=9)
    same(own.outcome(), expected)
    assert (flags.numbers > 0).sum() > 3


DEATHS = {
    "exit": (lambda: os._exit(3), "ended with exit code 3"),
    "kill": (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed, by the system if memory ran out"),
    "signal": (lambda: os.kill(os.getpid(), signal.SIGUSR1), "ended by SIGUSR1"),
}


@linux_only
@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("errors", ["stop", "drop"])
def test_a_client_that_kills_every_worker_ends_the_run_and_is_named(federation, death, errors):
    (die, reason), bad, flags = DEATHS[death], first_cohort()[2], Flags()

    def action(client):
        if client == bad:
            flags.numbers[0] += 1
            die()

    own = federation("processes", wrap=worker_only(action), workers=2, retries=2, client_errors=errors)
    before = own.state
    with pytest.raises(WorkerError, match=f"lost 3 workers, while it trained client {bad}: {reason}"):
        own.round()
    assert flags.numbers[0] == 3
    assert own.state is before


@linux_only
def test_a_lane_may_lose_as_many_workers_as_the_settings_say(federation):
    flags, bad = Flags(), first_cohort()[2]

    def action(client):
        if client == bad and flags.numbers[0] < 2:
            flags.numbers[0] += 1
            os._exit(1)

    expected = federation().outcome(1)
    same(federation("processes", wrap=worker_only(action), workers=2, retries=2).outcome(1), expected)
    flags.numbers[:] = 0
    own = federation("processes", wrap=worker_only(action), workers=2, retries=1)
    with pytest.raises(WorkerError, match="lost 2 workers"):
        own.round()


@linux_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_for_the_whole_job_do_not_reach_the_workers(federation, number):
    own = federation("processes", workers=2)
    own.round()
    pids = own.pids()
    until(lambda: all(ignores(pid, number) for pid in pids))
    for pid in pids:
        os.kill(pid, number)
    own.round()
    assert own.pids() == pids


def ignores(pid, number):
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(int(mask, 16) >> (number - 1) & 1)


# --- clients that hang ---------------------------------------------------------------------------


def hanging(*clients, flags=None):
    def action(client):
        if client in clients and (flags is None or flags.once(clients.index(client))):
            time.sleep(60)

    return worker_only(action)


@linux_only
def test_a_client_that_takes_too_long_stops_the_run_and_is_named(federation):
    bad = first_cohort()[2]
    own = federation("processes", wrap=hanging(bad), workers=2, client_seconds=0.5)
    start = time.monotonic()
    with pytest.raises(ClientError, match=f"client {bad} failed in round 1: it trained for more than .*=0.5"):
        own.round()
    assert time.monotonic() - start < 5


@linux_only
@pytest.mark.parametrize("lanes", [2, 64])
def test_clients_that_take_too_long_are_left_out_and_reported(federation, lanes):
    cohort = first_cohort()
    bad = [cohort[1], cohort[2], cohort[5]]
    own = federation(
        "processes",
        wrap=hanging(*bad),
        workers=2,
        lanes=lanes,
        client_seconds=0.5,
        client_errors="drop",
        retries=0,
    )
    expected = own.by_hand([client for client in cohort if client not in bad])
    start = time.monotonic()
    row = own.round()
    assert time.monotonic() - start < 5
    assert sorted(map(int, row["failed"])) == sorted(bad)
    assert all("client_seconds=0.5" in reason for reason in row["failed"].values())
    if lanes == 64:
        assert torch.equal(own.state.params, expected)
    else:
        torch.testing.assert_close(own.state.params, expected, rtol=1e-6, atol=1e-7)


@linux_only
def test_clients_that_hang_do_not_count_as_lost_workers(federation):
    """One of a lane's clients hangs, and another kills its worker once: that is one loss, not two."""
    cohort, flags = first_cohort(), Flags()

    def action(client):
        if client == cohort[0]:
            time.sleep(60)
        if client == cohort[1] and flags.once():
            os._exit(1)

    own = federation(
        "processes",
        wrap=worker_only(action),
        workers=1,
        lanes=1,
        client_seconds=0.5,
        client_errors="drop",
        retries=1,
    )
    row = own.round()
    assert list(row["failed"]) == [str(cohort[0])]
    assert flags.numbers[0] >= 2


@linux_only
def test_many_quick_clients_may_take_longer_together_than_one_may(federation):
    own = federation(
        "processes", wrap=worker_only(lambda client: time.sleep(0.12)), workers=1, lanes=1, client_seconds=0.6
    )
    assert own.round()["failed"] == {}


# --- workers that stop, and workers that hang beside their clients -------------------------------


def stopping(flags, *clients):
    """In workers, the first that has one of these clients is stopped."""

    def action(client):
        if client in clients and flags.once(clients.index(client)):
            os.kill(os.getpid(), signal.SIGSTOP)

    return worker_only(action)


@linux_only
def test_workers_stopped_while_they_have_nothing_to_do_are_replaced(federation):
    expected = federation().outcome()
    own = federation("processes", workers=2, client_seconds=0.5, retries=1)
    told = [own.round()]
    pids = own.pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    told += own.rounds(2)
    same((told, own.state.params, own.state.buffers), expected)
    assert not {*pids} & {*own.pids()}


@linux_only
@pytest.mark.parametrize("errors", ["stop", "drop"])
def test_workers_stopped_in_the_middle_of_a_client_blame_nobody(federation, errors):
    expected = federation().outcome()
    wrap = stopping(Flags(), *first_cohort()[1:3])
    own = federation("processes", wrap=wrap, workers=2, client_seconds=0.5, client_errors=errors, retries=1)
    same(own.outcome(), expected)


@linux_only
def test_a_worker_that_is_stopped_again_and_again_ends_the_run(federation):
    bad = first_cohort()[2]
    stop = worker_only(lambda client: client == bad and os.kill(os.getpid(), signal.SIGSTOP))
    own = federation("processes", wrap=stop, workers=2, client_seconds=0.3, client_errors="drop", retries=1)
    with pytest.raises(WorkerError, match=rf"lost 2 workers, while it trained client {bad}: it was stopped"):
        own.round()


@linux_only
def test_a_worker_that_is_stopped_without_a_limit_is_warned_of_and_can_go_on(federation, monkeypatch, caplog):
    class GoOn(logging.Handler):
        def emit(self, record):
            os.kill(record.args[0], signal.SIGCONT)

    monkeypatch.setattr(patience, "WORTH_A_WORD", 0.0)
    monkeypatch.setattr(patience, "SILENCE", 0.0)
    monkeypatch.setattr(patience.logger, "handlers", [GoOn()])
    own = federation("processes", wrap=stopping(Flags(), first_cohort()[1]), workers=1)
    same(own.outcome(1), federation().outcome(1))
    (message,) = caplog.messages
    assert "is stopped (SIGSTOP), and its clients wait; it goes on by: kill -CONT" in message


@linux_only
def test_a_worker_that_hangs_before_its_first_client_is_replaced(federation, monkeypatch):
    expected, flags, parent = federation().outcome(1), Flags(), os.getpid()
    train = LaneTrainer.train

    def hang(self, *args):
        if os.getpid() != parent and flags.once():
            time.sleep(60)
        return train(self, *args)

    monkeypatch.setattr(LaneTrainer, "train", hang)
    own = federation("processes", workers=1, client_seconds=0.2, retries=1)
    same(own.outcome(1), expected)
    assert flags.numbers[0] > 1


@linux_only
@pytest.mark.parametrize("retries", [0, 1])
def test_a_worker_that_stops_while_it_answers_is_replaced(federation, monkeypatch, retries):
    expected, flags, parent = federation().outcome(1), Flags(), os.getpid()
    send = Connection.send

    def stop(self, answer):
        if os.getpid() != parent and flags.once():
            os.write(self.fileno(), b"\0\0")  # half of how long the answer will be
            os.kill(os.getpid(), signal.SIGSTOP)
        send(self, answer)

    monkeypatch.setattr(Connection, "send", stop)
    own = federation("processes", workers=1, client_seconds=0.2, retries=retries)
    if retries:
        same(own.outcome(1), expected)
    else:
        with pytest.raises(WorkerError, match="it stopped answering"):
            own.round()


@linux_only
def test_a_lane_too_long_for_a_pipe_is_taken_back_from_a_stopped_worker(federation):
    own = federation("processes", workers=1, client_seconds=0.2)
    own.round()
    (worker,) = own.workers
    os.kill(worker.process.pid, signal.SIGSTOP)
    (lane,) = lanes_of(2, own.cohort(2)[:1], own.config.execution)
    kept = {client: {"Part": {"own": np.zeros(10**6, np.float32)}} for client in lane.clients}
    results = own.executor.train((own.state.params, own.state.buffers), [replace(lane, memory=kept)])
    assert next(results).reports.clients == list(lane.clients)


@linux_only
def test_a_worker_whose_child_outlives_it_is_found_dead(federation):
    """The child holds the worker's end of the pipe open."""
    expected, flags, children_of_workers = federation().outcome(1), Flags(), Flags()

    def action(client):
        if client == first_cohort()[2] and flags.once():
            child = os.fork()
            if child == 0:
                time.sleep(60)
            children_of_workers.numbers[0] = child
            os._exit(7)

    own = federation("processes", wrap=worker_only(action), workers=2, retries=1)
    try:
        same(own.outcome(1), expected)
    finally:
        os.kill(int(children_of_workers.numbers[0]), signal.SIGKILL)


@linux_only
def test_rounds_of_one_run_may_come_from_threads_that_end(federation):
    """Workers end with the thread that started them: every thread starts its own."""
    expected = federation().outcome()
    own = federation("processes", workers=2, retries=0)
    told = []
    for _ in range(ROUNDS):
        thread = threading.Thread(target=lambda: told.append(own.round()))
        thread.start()
        thread.join()
    same((told, own.state.params, own.state.buffers), expected)


# --- rounds broken off, and the end --------------------------------------------------------------


@linux_only
@pytest.mark.parametrize("used", [0, 1, 3])
def test_after_a_round_broken_off_another_works(federation, used):
    expected = federation().outcome()
    own = federation("processes", workers=3)
    results = own.results(9)
    for _ in range(used):
        next(results)
    results.close()
    same(own.outcome(), expected)


@linux_only
def test_after_a_round_broken_off_one_with_fewer_lanes_works(federation):
    flags = Flags()
    own = federation("processes", wrap=hanging(*first_cohort()[:3], flags=flags), workers=3)
    results, policy = own.results(), own.executor._policy
    own.executor._policy = replace(policy, client_seconds=0.1)
    with pytest.raises(ClientError):
        next(results)
    own.executor._policy = policy
    (lane,) = lanes_of(2, own.cohort(2)[:1], own.config.execution)
    (result,) = own.executor.train((own.state.params, own.state.buffers), [lane])
    assert result.reports.clients == [own.cohort(2)[0]]
    again = lane_results(own, 2)
    assert [lane for lane, *_ in again] == own.lanes(2)


@linux_only
def test_no_round_at_all_needs_no_lanes(federation):
    own = federation("processes", workers=2)
    assert list(own.executor.train((own.state.params, own.state.buffers), [])) == []


@linux_only
def test_closing_leaves_no_process_and_no_open_file(federation):
    gc.collect()
    before, files = children(), len(os.listdir("/proc/self/fd"))
    own = federation("processes", workers=3)
    own.round()
    assert len(children() - before) == 3
    own.kill(0)
    own.executor.close()
    assert children() == before
    assert len(os.listdir("/proc/self/fd")) == files
    own.executor.close()
    # And it can be used again.
    own.round()
    assert len(children() - before) == 3


@linux_only
def test_closing_does_not_wait_for_clients(federation):
    own = federation("processes", wrap=hanging(*first_cohort()), workers=2)
    results = own.results()
    own.executor._policy = replace(own.executor._policy, client_seconds=0.05)
    with pytest.raises(ClientError):
        next(results)
    start = time.monotonic()
    own.executor.close()
    assert time.monotonic() - start < 2


SCRIPT = """
import dataclasses, os, sys, time, atexit
sys.path.insert(0, {tests!r})
from simulation_executors import Federation, hanging, worker_only, first_cohort
busy = {busy}
own = Federation("processes", wrap=hanging(*first_cohort()) if busy else None, workers=3)
if busy:
    own.executor._policy = dataclasses.replace(own.executor._policy, client_seconds=30.0)
    results = own.results()
    import threading
    threading.Thread(target=lambda: next(results), daemon=True).start()
    while (own.executor._shared.doing[:, 0] >= 0).sum() < 3:
        time.sleep(0.01)
else:
    own.round()
print(*own.pids(), flush=True)
{end}
"""


def script(folder, busy, end):
    """A process of its own that starts three workers, tells their numbers, and ends in some way."""
    (folder / "simulation_executors.py").symlink_to(Path(__file__).resolve())
    paths = [str(folder), str(Path(__file__).resolve().parents[1])]
    code = f"import sys; sys.path[:0] = {paths!r}\n" + SCRIPT.format(tests=str(folder), busy=busy, end=end)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    pids = [int(number) for number in process.stdout.readline().split()]
    assert len(pids) == 3
    return process, pids


def finish(process, pids):
    process.kill()
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


@linux_only
@pytest.mark.parametrize("stopped", [False, True], ids=["", "stopped"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@pytest.mark.sweep(quick=1)
def test_workers_end_when_their_parent_is_killed(tmp_path, busy, stopped):
    process, pids = script(tmp_path, busy, "time.sleep(60)")
    try:
        assert all(alive(pid) for pid in pids)
        for pid in pids if stopped else ():
            os.kill(pid, signal.SIGSTOP)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        until(lambda: not any(alive(pid) for pid in pids), 30)
    finally:
        finish(process, pids)


@linux_only
@pytest.mark.parametrize("again", [False, True], ids=["", "closed and used again"])
@pytest.mark.sweep(quick=1)
def test_a_program_that_forgets_to_close_ends_all_the_same(tmp_path, again):
    end = "own.executor.close(); own.round()" if again else ""
    process, pids = script(tmp_path, False, end)
    try:
        assert process.wait(20) == 0
        until(lambda: not any(alive(pid) for pid in pids), 30)
    finally:
        finish(process, pids)


# --- memory --------------------------------------------------------------------------------------


@linux_only
def test_every_worker_has_two_results_at_most_whatever_the_cohort(federation):
    config = settings_of(
        {"executor": "processes", "workers": 2, "clients_per_batch": 1, "lanes": 30}, cohort=30
    )
    own = federation(config=config)
    slots = own.executor._shared.slots
    assert [len(held) for held in slots] == [processes.SLOTS] * 2 == [2, 2]
    allowed = {vectors[0].data_ptr() for held in slots for vectors in held}
    assert len(allowed) == 4
    used, held = set(), []
    for number, result in enumerate(own.results()):
        used.add(result.vectors[0].data_ptr())
        if number < 3:
            # While one is used, the others work until they have nowhere to put their results.
            copy = result.vectors[0].clone()
            time.sleep(0.05)
            assert torch.equal(result.vectors[0], copy), "nobody writes to a result in use"
        held.append(result.lane.index)
    assert used <= allowed
    assert held == list(range(30))
    assert all(sorted(worker.free) == [0, 1] for worker in own.workers), "all free again"


@linux_only
def test_a_slow_first_lane_holds_up_the_others_without_a_deadlock(federation):
    cohort, flags = first_cohort(), Flags()

    def action(client):
        if client == cohort[0]:
            time.sleep(0.3)
            if flags.once():
                os._exit(1)

    expected = lane_results(federation("processes", workers=1))
    own = federation("processes", wrap=worker_only(action), workers=2)
    same_results(lane_results(own), expected)


@linux_only
def test_there_are_no_more_workers_than_there_is_work(federation):
    own = federation("processes", workers=20)
    assert len(own.executor._workers) == COHORT
    own = federation("processes", workers=20, lanes=2)
    own.round()
    assert len(own.workers) == 2


@linux_only
def test_a_worker_that_cannot_be_started_is_told(federation, monkeypatch):
    def start(self):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(multiprocessing.get_context("fork").Process, "start", start)
    own = federation("processes", workers=2)
    with pytest.raises(
        WorkerError, match=r"worker 0 could not be started: no more processes.*fewer execution.workers"
    ):
        own.round()


def test_why_not_says_where_processes_cannot_be_used(monkeypatch):
    assert processes.why_not("cpu", 1) is None or not sys.platform.startswith("linux")
    assert "GPU" in processes.why_not("cuda:1", 1)
    assert "threads=1" in processes.why_not("cpu", 2)
    monkeypatch.setattr(processes, "sys", SimpleNamespace(platform="darwin"))
    assert "Linux only" in processes.why_not("cpu", 1)


def test_a_lane_tells_its_round_to_the_clients(federation):
    """Draws depend on the round: the same clients in another round end elsewhere."""
    own = federation()
    start = own.state.params, own.state.buffers
    one, two = (
        next(own.executor.train(start, [Lane(index, 0, (1, 2))])).vectors[0].clone() for index in (1, 2)
    )
    assert not torch.equal(one, two)


@linux_only
def test_a_run_without_files_for_its_workers_says_so(federation, monkeypatch):
    def pipe():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(multiprocessing, "Pipe", pipe)
    with pytest.raises(WorkerError, match=r"worker 0 .*open files \(ulimit -n\).*fewer execution.workers"):
        federation("processes", workers=2).round()


@linux_only
@pytest.mark.parametrize("how", ["too much", "refused"])
def test_workers_whose_results_have_no_room_are_refused_before_the_first_round(federation, monkeypatch, how):
    def refuse(*args):
        raise OSError(12, "Cannot allocate memory")

    if how == "refused":
        monkeypatch.setattr(mmap, "mmap", refuse)
    else:
        monkeypatch.setattr(shared_memory, "memory_room", lambda: Room(100, "are left"))
    with pytest.raises(InputError, match=r"execution\.workers: got 2; expected fewer: they share .* GB, and"):
        federation("processes", workers=2)
