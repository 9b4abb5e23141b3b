"""Blocks that clients keep: FedPer, FedRep and FedBN by hand; what is kept, tested, resumed and refused."""

import math
import sys
from contextlib import closing

import numpy as np
import pytest
import torch
from support.choosing import (
    HEAD,
    OPEN,
    SELECTORS,
    Federation,
    Wrapped,
    chosen_by,
    personal_of,
    same_bits,
    settings_of,
)
from support.federations import left, tiny

from fedtlu_fast import InputError
from fedtlu_fast.build.executor import choose
from fedtlu_fast.build.run import founding, open_run
from fedtlu_fast.client_steps.personal import personal_step
from fedtlu_fast.config.settings import load_config
from fedtlu_fast.experiments.compare import compare
from fedtlu_fast.experiments.estimate import estimate
from fedtlu_fast.experiments.variants import with_variant
from fedtlu_fast.report.aggregate.costs import read_costs
from fedtlu_fast.scoring import layer_stats
from fedtlu_fast.scoring.units import unit_norms
from fedtlu_fast.simulation.evaluation import local_test, trained_local_loss
from fedtlu_fast.simulation.records import metrics_row

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are forked")
FEDPER = {"selector": "full", "personal": "8"}
FEDREP = {**FEDPER, "alternate": True}
HELD = {"proximal_mu": 0.7, "clip_norm": 0.4}


@pytest.fixture(autouse=True)
def _one_thread():
    """As a run has it: torch's last bits may depend on the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fedbn(**over):
    """Small images under batch normalisation, whose norms the clients keep."""
    own = ["clients=6", "cohort=3", "rounds=3", "warmup_rounds=0", "layers=2", "width=8", "norm=batch"]
    own += ["granularity=module", "selection.selector=full", "client_selection.selector=full"]
    more = [f"{key}={value}" for key, value in over.items()]
    return load_config(
        "digits", overrides=[*own, "personal='*norm'", "executor=serial", "local_steps=3", *more]
    )


class Hand:
    """The same rounds by hand: every client's own numbers, kept apart from the server's."""

    def __init__(self, federation, personal, alternate=False):
        self.federation, self.personal, self.alternate = federation, personal, alternate
        self.layout, self.own, self.times = federation.layout, {}, {}
        rest = sorted(set(range(len(self.layout.blocks))) - set(personal))
        self.shared, self.runs = rest, self.layout.runs(personal)
        self.buffers = [
            slice(slot.offset, slot.offset + slot.numel)
            for slot in self.layout.buffers
            if "norm" in slot.name
        ]

    def start(self, state, client):
        params, buffers = state.params.clone(), state.buffers.clone()
        if client in self.own:
            own_params, own_buffers = self.own[client]
            for run in self.runs:
                params[run] = own_params[run]
            for run in self.buffers:
                buffers[run] = own_buffers[run]
        return params, buffers

    def train(self, state, client):
        start = self.start(state, client)
        trainer, at = self.federation.trainer, (state.round + 1, client)
        samples = self.federation.population.train(client)
        if self.alternate:
            first = trainer.train(*start, samples, *at, self.personal, "first ")
            start = first.params.clone(), first.buffers
            return trainer.train(*start, samples, *at, self.shared)
        return trainer.train(*start, samples, *at)

    def round(self):
        """One round of both; they have to agree."""
        federation = self.federation
        before, record = federation.round()
        total = sum(map(federation.samples, record.cohort))
        change = torch.zeros_like(before.params, dtype=torch.float64)
        buffers = torch.zeros_like(before.buffers, dtype=torch.float64)
        for client in record.cohort:
            update, weight = self.train(before, client), federation.samples(client) / total
            change += weight * (update.params.double() - before.params)
            buffers += weight * (update.buffers.double() - before.buffers)
            self.own[client] = update.params.clone(), update.buffers.clone()
            self.times[client] = self.times.get(client, 0) + 1
        for run in self.runs:
            assert same_bits(federation.state.params[run], before.params[run])
            change[run] = 0
        for run in self.buffers:
            assert same_bits(federation.state.buffers[run], before.buffers[run])
            buffers[run] = 0
        torch.testing.assert_close(
            federation.state.params.double(), before.params.double() + change, rtol=2e-5, atol=2e-6
        )
        torch.testing.assert_close(
            federation.state.buffers.double(), before.buffers.double() + buffers, rtol=2e-5, atol=2e-6
        )
        assert federation.personal.keys() == self.own.keys()
        for client, (own_params, own_buffers) in self.own.items():
            parts = [own_params[run] for run in self.runs] + [own_buffers[run] for run in self.buffers]
            found = torch.from_numpy(federation.personal[client])
            assert same_bits(found, torch.cat(parts))
        return before, record


# --- the papers' rules ---------------------------------------------------------------------------


@pytest.mark.parametrize("training", [{}, HELD], ids=str)
def test_fedper_averages_the_base_and_leaves_every_client_its_head(training):
    hand = Hand(Federation(settings_of(FEDPER, training=training)), [HEAD])
    for _ in range(4):
        before, record = hand.round()
        assert set(record.sent.values()) == {OPEN}
        assert record.selection.blocks == OPEN
        assert not hand.federation.kept(before.params, [0])
    assert max(hand.times.values()) > 1, "else nobody went on from its own"
    heads = [own.tobytes() for own in hand.federation.personal.values()]
    assert len(set(heads)) == len(heads)


@pytest.mark.parametrize("training", [{}, HELD], ids=str)
def test_fedrep_trains_the_head_and_then_the_base(training):
    hand = Hand(Federation(settings_of(FEDREP, training=training)), [HEAD], alternate=True)
    for _ in range(4):
        hand.round()
    assert max(hand.times.values()) > 1


def test_fedbn_keeps_norms_and_their_statistics():
    federation = Federation(fedbn())
    names = [block.name for block in federation.layout.blocks]
    norms = [index for index, name in enumerate(names) if name.endswith("norm")]
    assert len(norms) == 2
    hand = Hand(federation, norms)
    for _ in range(3):
        before, _ = hand.round()
        assert not federation.kept(before.params, [names.index("head")])
    assert max(hand.times.values()) > 1
    assert {len(own) for own in federation.personal.values()} == {2 * (2 * 8 + 2 * 8)}


@pytest.mark.parametrize("architecture", ["gpt2", "transformer"])
def test_fedbn_finds_the_norms_of_transformers(architecture, text):
    pattern, count = ("*ln_*", 7) if architecture == "gpt2" else ("*norm", 7)
    config = tiny(
        text,
        warmup_rounds=0,
        model={"architecture": architecture},
        selection={"selector": "full", "granularity": "module"},
        client_selection={"selector": "full", "personal": pattern},
    )
    federation = Federation(config)
    before, record = federation.round()
    part = personal_step(federation.server.steps.steps).part
    assert len(part.blocks) == count, "two in each of three blocks, and the last"
    assert {len(own) for own in federation.personal.values()} == {count * 2 * 8}
    assert federation.kept(before.params, part.blocks)
    assert set(record.selection.blocks).isdisjoint(part.blocks)
    assert all(not federation.kept(before.params, [block]) for block in record.selection.blocks)


# --- with everything else ------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SELECTORS, "fedluar"])
def test_with_any_selector_personal_blocks_are_trained_and_never_sent(name):
    selection = chosen_by(name, **({"budget": 2} if name == "fedluar" else {}), personal="8")
    federation = Federation(settings_of(selection))
    first = federation.state.params.clone()
    for _ in range(3):
        before, record = federation.round()
        for client in record.cohort:
            assert HEAD in record.client_choice.orders.trained[client]
            assert HEAD not in record.sent[client]
            earlier = personal_of(before).get(client)
            now = federation.personal[client]
            assert earlier is None or not np.array_equal(earlier, now)
        assert HEAD not in record.selection.blocks
        assert federation.kept(first, [HEAD])


def test_in_the_warm_up_everything_is_shared_and_clients_begin_from_its_end():
    federation = Federation(settings_of(FEDPER, warmup_rounds=2))
    plain = Federation(settings_of({}, warmup_rounds=2))
    for _ in range(2):
        federation.round()
        plain.round()
        assert not federation.personal
    assert same_bits(federation.state.params, plain.state.params)
    hand = Hand(federation, [HEAD])
    hand.round()
    hand.round()


def test_a_threat_changes_what_is_sent_only():
    honest = Federation(settings_of(FEDPER))
    flipped = Federation(settings_of(FEDPER, threats=["sign_flip:1"]))
    huge = Federation(settings_of(FEDPER, threats=["scaling:1:1e38"]))
    for federation in (honest, flipped, huge):
        federation.round()
    for federation in (flipped, huge):
        assert not same_bits(federation.state.params, honest.state.params) or federation is huge
        for client, own in honest.personal.items():
            assert np.array_equal(federation.personal[client], own)
        assert federation.kept(honest.state.params, [HEAD])


def test_clients_measure_at_their_own_model():
    federation = Federation(settings_of(chosen_by("rgn", personal="8", probe_batches=2)))
    seen = 0
    for _ in range(4):
        before, record = federation.round()
        hand = personal_step(federation.server.steps.steps).part
        for client, gains in zip(record.cohort, record.client_choice.gains, strict=True):
            params, buffers = before.params, before.buffers
            if client in personal_of(before):
                params, buffers = hand.model_of((params, buffers), personal_of(before)[client])
            samples = federation.population.train(client)
            gradient = federation.trainer.gradient(params, buffers, samples, 2, record.round, client)
            sizes = [
                unit_norms(layer_stats(one, federation.layout), federation.layout)[-5:]
                for one in (gradient, params)
            ]
            np.testing.assert_allclose(gains, (sizes[0] / sizes[1]).numpy(), rtol=1e-5)
            seen += client in personal_of(before)
    assert seen


def test_a_client_that_fails_keeps_what_it_had():
    broken = {}

    def happen(client, samples):
        if broken.get(client):
            raise ValueError("no data today")
        return samples

    execution = {"client_errors": "drop"}
    config = settings_of(FEDPER, cohort=12, execution=execution)
    federation = Federation(config, wrap=lambda inner: Wrapped(inner, happen))
    federation.round()
    broken[3] = True
    before, record = federation.round()
    assert list(record.failed) == [3]
    for client, own in personal_of(before).items():
        assert np.array_equal(federation.personal[client], own) == (client == 3)


def test_numbers_that_are_none_are_not_kept():
    federation = Federation(settings_of(FEDPER, training={"lr": 1e30, "clip_norm": None}))
    _, record = federation.round()
    assert record.refused
    assert federation.personal.keys().isdisjoint(record.refused)
    assert all(np.isfinite(own).all() for own in federation.personal.values())


# --- tests on the clients' own data --------------------------------------------------------------


def test_each_client_is_tested_on_its_own_model(monkeypatch):
    evaluation = {"local_clients": None, "trained_clients": 12, "local_held_out": 0}
    data = {"test_fraction": 0.3, "synthetic": {"features": 6, "fewest": 8, "most": 25}}
    federation = Federation(settings_of(FEDPER, evaluation=evaluation, data=data))
    hand = Hand(federation, [HEAD])
    hand.round()
    state, task = federation.state, federation.trainer.task
    assert 0 < len(personal_of(state)) < 12
    losses, hits, after = [], [], []
    for client in range(12):
        held = federation.population.held_out(client)
        if not len(held):
            continue
        model = hand.start(state, client)
        federation.trainer.load_(*model)
        found = task.evaluate(held.all(), 100)
        losses.append(float(found.loss))
        hits.append(float(found.means["accuracy"]))
        federation.trainer.train(*model, federation.population.train(client), 5, client)
        after.append(float(task.evaluate(held.all(), 100).loss))
    local = local_test(federation.server, state)
    assert local.loss == pytest.approx(np.mean(losses), rel=1e-6)
    assert local.means["accuracy"] == pytest.approx(np.mean(hits), rel=1e-6)
    trained = trained_local_loss(federation.server, state)
    assert (trained.before, trained.after) == pytest.approx((np.mean(losses), np.mean(after)), rel=1e-6)
    assert not local.left_out
    assert not trained.left_out
    federation.trainer.load_(state.params, state.buffers)
    calls, evaluate = [], task.evaluate

    def counted(*given):
        calls.append(given)
        return evaluate(*given)

    monkeypatch.setattr(task, "evaluate", counted)
    plain = local_test(federation.server, Federation(settings_of(FEDPER, data=data)).state)
    assert len(calls) == 1, "one for all, as long as nobody has anything of its own"
    assert plain.loss != local.loss


# --- who trains, and when ------------------------------------------------------------------------


@linux_only
@pytest.mark.parametrize("chosen", [FEDPER, FEDREP, chosen_by("snr", personal="8")], ids=str)
def test_processes_give_the_bits_of_one_process(chosen):
    def after(execution):
        federation, rows = Federation(settings_of(chosen, execution={"lanes": 3, **execution})), []
        with closing(federation.executor):
            for _ in range(3):
                _, record = federation.round()
                rows.append(metrics_row(federation.server, federation.state, record))
        return rows, federation.state

    rows, expected = after({})
    for workers in (1, 2):
        found_rows, found = after({"executor": "processes", "workers": workers})
        assert found_rows == rows
        assert same_bits(found.params, expected.params)
        assert personal_of(found).keys() == personal_of(expected).keys()
        for client, own in personal_of(expected).items():
            assert personal_of(found)[client].tobytes() == own.tobytes()


def test_a_resumed_run_gives_the_same_bits(tmp_path):
    config = settings_of(FEDREP, checkpoint={"every": 2})
    with closing(open_run(config, tmp_path / "whole")) as run:
        run.advance(config.rounds)
        run.finish()
        expected = personal_of(run.state)
    with closing(open_run(config, tmp_path / "parts")) as run:
        run.advance(2)
        assert personal_of(run.state)
    with closing(open_run(config, tmp_path / "parts", resume=True)) as run:
        assert run.state.round == 2
        run.advance(config.rounds)
        run.finish()
        assert personal_of(run.state).keys() == expected.keys()
        assert all(personal_of(run.state)[k].tobytes() == own.tobytes() for k, own in expected.items())
    assert left(tmp_path / "parts") == left(tmp_path / "whole")


def test_auto_trains_such_clients_one_at_a_time():
    config = settings_of(FEDPER, execution={"executor": "auto", "clients_per_batch": None, "engine": None})
    federation = Federation(settings_of(FEDPER))
    settled, note = choose(config, federation.population, federation.trainer, federation.server.steps)
    assert settled.execution.clients_per_batch == 1
    assert settled.execution.name_of("executor") in ("serial", "processes")
    assert "clients start from models of their own" in note


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        ({"selector": "none", "personal": "8"}, "personal"),
        ({"selector": "full", "alternate": True}, "alternate"),
        ({"selector": "full", "alternate": True, "personal": []}, "alternate"),
    ],
    ids=str,
)
def test_settings_that_mean_nothing_are_refused(chosen, field):
    with pytest.raises(InputError) as caught:
        settings_of(chosen)
    assert caught.value.field == f"client_selection.{field}"


# --- what it costs -------------------------------------------------------------------------------


def test_personal_blocks_travel_neither_up_nor_down(tmp_path):
    config = settings_of(FEDREP, warmup_rounds=1, rounds=3)
    with closing(open_run(config, tmp_path / "rep")) as run:
        run.advance(3)
        result = run.finish()
    with founding(config) as (settled, founded):
        found = estimate(settled, founded)
    sizes, cohort = result.layout.block_sizes(), config.cohort
    shared = sum(sizes) - sizes[HEAD]
    expected = [4 * cohort * size for size in (sum(sizes), shared, shared)]
    assert [row["bytes_up"] for row in result.metrics] == expected
    assert [row["bytes_published"] for row in result.metrics] == [size // cohort for size in expected]
    assert result.summary["personal_blocks"] == ["8"]
    (costs,) = read_costs({"rep": [tmp_path / "rep"]})["rep"]
    rows = costs.rounds
    assert [row["bytes_up"] for row in rows] == expected
    assert [row["bytes_down"] for row in rows] == expected
    assert found.upload_bytes == 4 * cohort * shared
    kept = found.server_bytes - 5 * 4 * sum(sizes)
    assert kept == 4 * sizes[HEAD] * 12


def test_arms_of_a_comparison_can_keep_blocks(tmp_path, in_process):
    base = settings_of({})
    assert with_variant(base, "full@all+personal=auto+alternate=true").client_selection.alternate
    shared = settings_of(FEDPER)
    assert with_variant(shared, "top@2").client_selection.personal == "8"
    assert math.isfinite(Federation(with_variant(shared, "top@2")).round()[1].train_loss)
    # Whatever trains the others fastest: this arm's clients go one at a time, and so do all.
    given = settings_of(
        {}, rounds=1, execution={"executor": "auto", "clients_per_batch": None, "engine": None}
    )
    plain, kept = compare(given, ["full", "full@all+personal=auto"], [0], tmp_path / "arms", jobs=1)
    assert kept.summary["personal_blocks"] == ["8"]
    assert kept.summary["bytes_up"] < plain.summary["bytes_up"]
