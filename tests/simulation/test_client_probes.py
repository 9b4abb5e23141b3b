"""Clients that probe before they train: what they measure, what fails, what is remembered and resumed."""

import json
import math
import shutil
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.choosing import (
    BLOCKS,
    HEAD,
    Federation,
    Wrapped,
    chosen_by,
    last_change,
    probes_of,
    same_bits,
    settings_of,
)
from support.federations import timeless

from fedtlu_fast import InputError
from fedtlu_fast.build.run import open_run
from fedtlu_fast.client_steps import recycling
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.data.population import Samples
from fedtlu_fast.errors import ClientError, WorkerError
from fedtlu_fast.part_memory import PartMemory
from fedtlu_fast.simulation.records import metrics_row, selection_row
from fedtlu_fast.simulation.state import load_checkpoint, save_checkpoint

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are forked")
PROBING = ("gradnorm", "rgn", "snr", "strategic", "agreeing")
EXECUTIONS = {
    "serial": {"executor": "serial", "clients_per_batch": 1},
    "vectorized": {"executor": "vectorized", "clients_per_batch": 3},
    "processes": {"executor": "processes", "clients_per_batch": 1, "workers": 2},
}
executions = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=linux_only if name == "processes" else ()) for name in EXECUTIONS]
)


def drawn(config, index=1):
    """The cohort of a round."""
    own = Federation(config)
    return own.server.participation.draw(index, {}).cohort


# --- what they measure ---------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["gradnorm", "rgn", "snr"])
@pytest.mark.parametrize("clients_per_batch", [1, 3])
def test_gains_are_those_of_each_clients_own_gradient(metric, clients_per_batch):
    execution = EXECUTIONS["serial" if clients_per_batch == 1 else "vectorized"]
    chosen = {"selector": "strategic", "metric": metric, "probe_batches": 2, "budget": 2}
    own = Federation(settings_of(chosen, execution=execution))
    for _ in range(2):
        before, record = own.round()
        start = before.params.double().numpy()
        assert record.client_choice.probed == tuple(record.cohort)
        assert record.client_choice.gains.shape == (len(record.cohort), BLOCKS)
        for client, gains in zip(record.cohort, record.client_choice.gains, strict=True):
            gradient = own.trainer.gradient(
                before.params, before.buffers, own.population.train(client), 2, record.round, client
            )
            gradient = gradient.double().numpy()
            for block in range(BLOCKS):
                g, w = gradient[own.places(block)], start[own.places(block)]
                expected = {
                    "gradnorm": np.linalg.norm(g),
                    "rgn": np.linalg.norm(g) / np.linalg.norm(w),
                    "snr": g.mean() ** 2 / g.var(),
                }[metric]
                assert gains[block] == pytest.approx(expected, rel=1e-3)


def test_each_client_trains_its_best_and_the_head():
    own = Federation(settings_of(chosen_by("snr", budget=2, frozen="4")))
    _, record = own.round()
    choices = set()
    for client, gains in zip(record.cohort, record.client_choice.gains, strict=True):
        best = sorted((0, 1, 3), key=lambda block: -gains[block])[:2]
        assert record.sent[client] == (*sorted(best), HEAD)
        choices.add(record.sent[client])
    assert len(choices) > 1


# --- what fails ----------------------------------------------------------------------------------


class Missing:
    """Has some clients' data fail, from the n-th time that they are asked for."""

    def __init__(self, clients, after=0, error=ValueError):
        self.clients, self.after, self.error, self.asked = clients, after, error, dict.fromkeys(clients, 0)

    def __call__(self, client, samples):
        if client in self.clients:
            self.asked[client] += 1
            if self.asked[client] > self.after:
                raise self.error("no data")
        return samples


@executions
@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_who_fails_in_the_probe_does_not_train_and_the_others_do_as_without(name, error):
    execution = {**EXECUTIONS[name], "client_errors": "drop", "lanes": 2}
    config = settings_of(chosen_by("gradnorm"), execution=execution)
    cohort = drawn(config)
    own = Federation(config, lambda inner: Wrapped(inner, Missing({cohort[1]}, error=error)))
    with closing(own.executor):
        before, record = own.round()
    rest = [client for client in cohort if client != cohort[1]]
    assert record.cohort == cohort
    assert record.failed == {cohort[1]: f"{error.__name__}: 'no data'"}
    assert record.client_choice.probed == tuple(rest)
    assert sorted(record.sent) == sorted(rest)
    orders = record.client_choice.orders.trained
    changes = {client: Federation(config).alone(before, client, orders[client]) for client in rest}
    expected = before.params.double().numpy() + own.mean_by_hand(before, record.sent, changes)
    np.testing.assert_allclose(own.state.params.double().numpy(), expected, rtol=1e-5, atol=2e-6)
    row = selection_row(record, own.layout)
    assert row["client_blocks"][1] == []
    assert row["gains"][1] is None
    assert [gains for gains in row["gains"] if gains] == record.client_choice.gains.tolist()
    assert row["probed"] == rest


@executions
def test_when_every_probe_fails_nothing_changes_and_nothing_is_sent(name):
    execution = {**EXECUTIONS[name], "client_errors": "drop"}
    config = settings_of(chosen_by("strategic", probe_every=2), execution=execution)
    own = Federation(config, lambda inner: Wrapped(inner, Missing(set(range(12)))))
    with closing(own.executor):
        before, record = own.round()
    assert sorted(record.failed) == sorted(record.cohort)
    assert same_bits(own.state.params, before.params)
    row = metrics_row(own.server, own.state, record)
    assert (row["bytes_up"], row["bytes_published"], row["selected"]) == (0, 0, [])
    told = selection_row(record, own.layout)
    assert told["client_blocks"] == [[]] * len(record.cohort)
    assert told["gains"] == [None] * len(record.cohort)
    assert probes_of(own.state) == {}


@executions
def test_a_probe_that_fails_stops_the_run_where_the_settings_say_so(name):
    config = settings_of(chosen_by("rgn"), execution=EXECUTIONS[name])
    cohort = drawn(config)
    own = Federation(config, lambda inner: Wrapped(inner, Missing({cohort[2]})))
    with closing(own.executor), pytest.raises(ClientError, match=rf"client {cohort[2]}\b.*no data"):
        own.round()


@pytest.mark.parametrize("name", ["serial", "vectorized"])
def test_memory_that_is_short_is_said_and_not_worked_around(name):
    config = settings_of(chosen_by("rgn"), execution={**EXECUTIONS[name], "client_errors": "drop"})
    happen = Missing({drawn(config)[1]}, error=MemoryError)
    own = Federation(config, lambda inner: Wrapped(inner, happen))
    with pytest.raises(WorkerError, match="out of memory"):
        own.round()
    assert sum(happen.asked.values()) == 1


@pytest.mark.parametrize("selector", ["gradnorm", "top", "fedlp", "drift"])
@pytest.mark.parametrize("name", ["serial", "vectorized"])
def test_who_fails_in_training_sends_nothing(name, selector):
    config = settings_of(chosen_by(selector), execution={**EXECUTIONS[name], "client_errors": "drop"})
    cohort = drawn(config)
    probes = int(bool(config.client_selection.selector.probes))
    own = Federation(config, lambda inner: Wrapped(inner, Missing({cohort[1]}, after=probes)))
    before, record = own.round()
    assert list(record.failed) == [cohort[1]]
    orders = record.client_choice.orders.trained
    assert cohort[1] in orders
    assert sorted(record.sent) == sorted(set(cohort) - {cohort[1]})
    plain = Federation(config)
    changes = {client: plain.alone(before, client, orders[client]) for client in record.sent}
    expected = before.params.double().numpy() + plain.mean_by_hand(before, record.sent, changes)
    np.testing.assert_allclose(own.state.params.double().numpy(), expected, rtol=1e-5, atol=2e-6)
    sizes = own.layout.block_sizes()
    sent = sum(sizes[block] for blocks in record.sent.values() for block in blocks)
    assert metrics_row(own.server, own.state, record)["bytes_up"] == 4 * sent


def _nan(client):
    def happen(asked, samples):
        if asked != client:
            return samples
        inputs, *rest = samples.all()
        return Samples((torch.full_like(inputs, math.nan), *rest), np.arange(len(samples)))

    return happen


@executions
@pytest.mark.parametrize("selector", PROBING)
def test_a_client_whose_gradients_are_nan_chooses_nothing_and_is_refused(selector, name):
    config = settings_of(chosen_by(selector, probe_every=2), execution=EXECUTIONS[name])
    cohort = drawn(config)
    own = Federation(config, lambda inner: Wrapped(inner, _nan(cohort[1])))
    with closing(own.executor):
        before, record = own.round()
    assert np.isnan(record.client_choice.gains[1]).all()
    assert record.sent[cohort[1]] == (HEAD,)
    assert record.refused == [cohort[1]]
    assert record.failed == {}
    plain = Federation(config)
    sent = {client: blocks for client, blocks in record.sent.items() if client != cohort[1]}
    changes = {client: plain.alone(before, client, blocks) for client, blocks in sent.items()}
    expected = before.params.double().numpy() + plain.mean_by_hand(before, sent, changes)
    np.testing.assert_allclose(own.state.params.double().numpy(), expected, rtol=1e-5, atol=2e-6)
    text = json.dumps(selection_row(record, own.layout), allow_nan=False)
    assert json.loads(text)["gains"][1] == [None] * BLOCKS


# --- what is remembered --------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_client_probes_anew_only_when_its_probe_is_old(every):
    own = Federation(settings_of(chosen_by("snr", probe_every=every), cohort=6, rounds=12, warmup_rounds=1))
    last, kept = {}, 0
    for index in range(1, 10):
        _, record = own.round()
        if index == 1:
            assert probes_of(own.state) == {}
            continue
        choice = record.client_choice
        due = [c for c in record.cohort if c not in last or index - last[c][0] >= every]
        assert choice.probed == tuple(due)
        for client, gains in zip(record.cohort, choice.gains, strict=True):
            if client in due:
                last[client] = index, gains
            else:
                kept += 1
                assert gains.tolist() == last[client][1].tolist()
        assert selection_row(record, own.layout)["probed"] == due
        if every == 1:
            assert probes_of(own.state) == {}
        else:
            assert all(index - begun < every for begun, _ in probes_of(own.state).values())
            assert set(record.cohort) <= set(probes_of(own.state))
    assert (kept > 0) == (every > 1)


def test_probes_outlast_a_round_in_which_nobody_is_there():
    own = Federation(settings_of(chosen_by("snr", probe_every=5), cohort=3))
    own.round()
    before = probes_of(own.state)
    assert len(before) == 3
    own.server = replace(own.server, participation=_Nobody(own.server.participation))
    _, record = own.round()
    assert record.cohort == []
    assert probes_of(own.state) == before
    assert metrics_row(own.server, own.state, record)["bytes_up"] == 0


class _Nobody:
    """Draws nobody."""

    def __init__(self, inner):
        self.inner = inner

    def draw(self, index, losses):
        return replace(self.inner.draw(index, losses), cohort=[])

    def learnt(self, losses, reports):
        return losses


# --- what is resumed -----------------------------------------------------------------------------

RESUMED = {
    "probes": {"selector": "snr", "budget": 1, "probe_every": 3},
    "agreed": {"selector": "strategic", "budget": 1, "probe_every": 2},
    "used again": {"selector": "fedluar", "budget": 1},
    "drift": {"selector": "drift", "budget": 1},
}


def outcome(run):
    run.advance(run.server.rounds)
    return timeless(run.metrics), run.selection, run.state.sha256()


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_goes_on_from_any_round_to_the_same_bits(tmp_path, name):
    kept = {"every": 1, "retain": 9}
    config = settings_of(RESUMED[name], warmup_rounds=1, rounds=5, cohort=8, checkpoint=kept)
    with closing(open_run(config, tmp_path / "whole")) as run:
        whole = outcome(run)
    assert "client_blocks" in whole[1][1]
    if name in ("probes", "agreed"):
        assert len({len(row["probed"]) for row in whole[1][1:]}) > 1, "some probes are used again"
    checkpoints = sorted((tmp_path / "whole" / "checkpoints").iterdir())
    assert len(checkpoints) == 5
    for rounds in (1, 2, 4):
        out = tmp_path / str(rounds)
        shutil.copytree(tmp_path / "whole", out)
        for later in checkpoints[rounds:]:
            shutil.rmtree(out / "checkpoints" / later.name)
        remembers = name != "drift" and rounds > 1
        file = out / "checkpoints" / checkpoints[rounds - 1].name / "memory.safetensors"
        parts = {key.partition("/")[0] for key in load_file(file)}
        assert (parts == {"Selection"}) == (not remembers), "the choice of the round before is always kept"
        with closing(open_run(config, out, resume=True)) as run:
            assert run.state.round == rounds
            assert outcome(run) == whole


def test_a_checkpoint_holds_probes_and_the_last_change(tmp_path, generator):
    own = Federation(settings_of(chosen_by("snr", probe_every=9)))
    own.round()
    last = torch.randn(own.layout.size, generator=generator)
    memory = {**own.state.memory, recycling.PART: PartMemory({"change": last})}
    state = replace(own.state, memory=memory)
    save_checkpoint(tmp_path, own.layout, state, {}, 2)
    again = load_checkpoint(tmp_path, own.layout, {})
    assert same_bits(last_change(again), last)
    probes = probes_of(state)
    assert list(probes_of(again)) == sorted(probes)
    assert len(probes) == 5
    for client, (begun, gains) in probes_of(again).items():
        assert begun == 1
        assert gains.dtype == np.float64
        assert gains.tolist() == probes[client][1].tolist()


def test_a_damaged_memory_of_clients_is_passed_over(tmp_path):
    own = Federation(settings_of({"selector": "fedluar", "budget": 1}))
    for _ in range(2):
        own.round()
        save_checkpoint(tmp_path, own.layout, own.state, {}, 2)
    first, second = sorted(tmp_path.glob("*/memory.safetensors"))
    content = bytearray(second.read_bytes())
    content[-3] ^= 1
    second.write_bytes(content)
    assert load_checkpoint(tmp_path, own.layout, {}).round == 1
    first.unlink()
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(tmp_path, own.layout, {})


def test_probes_draw_apart_from_training(monkeypatch):
    """With or without probes, the same batches and dropout: a client's training is its own."""
    own = Federation(settings_of(chosen_by("gradnorm", budget=4), training={"lr": 0.1}))
    plain = Federation(settings_of({}, training={"lr": 0.1}))
    calls = []
    inner = LocalTrainer.gradient
    monkeypatch.setattr(
        LocalTrainer, "gradient", lambda self, *given: (calls.append(given), inner(self, *given))[1]
    )
    for _ in range(2):
        own.round()
        plain.round()
    assert len(calls) == 10
    assert same_bits(own.state.params, plain.state.params)
