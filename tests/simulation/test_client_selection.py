"""Rounds whose clients train or send chosen blocks, against each client's own training in float64."""

import math
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.choosing import (
    BLOCKS,
    HEAD,
    OPEN,
    SELECTORS,
    Federation,
    chosen_by,
    last_change,
    momentum_of,
    same_bits,
    settings_of,
)

from fedtlu_fast.client_steps import recycling
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.part_memory import PartMemory
from fedtlu_fast.simulation.records import metrics_row, selection_row

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are forked")
ALL = (*OPEN, HEAD)


@pytest.fixture(autouse=True)
def _one_thread():
    """As a run has it: torch's last bits may depend on the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rounds_of(config, count=3):
    """Logs and bits after some rounds."""
    own = Federation(config)
    with closing(own.executor):
        told = []
        for _ in range(count):
            _, record = own.round()
            row = metrics_row(own.server, own.state, record)
            told.append((row, selection_row(record, own.layout)))
        return told, own.state


# --- the mean of each block ----------------------------------------------------------------------


@pytest.mark.parametrize("clients_per_batch", [1, 3])
@pytest.mark.parametrize("name", SELECTORS)
def test_each_block_is_the_mean_over_those_who_sent_it(name, clients_per_batch):
    executor = "serial" if clients_per_batch == 1 else "vectorized"
    config = settings_of(
        chosen_by(name), execution={"executor": executor, "clients_per_batch": clients_per_batch}
    )
    own, left_out, kinds = Federation(config), 0, set()
    for _ in range(3):
        before, record = own.round()
        orders = record.client_choice.orders
        assert list(orders.trained) == record.cohort
        assert sorted(record.sent) == sorted(record.cohort)
        changes = {client: own.alone(before, client, orders.trained[client]) for client in record.cohort}
        expected = before.params.double().numpy() + own.mean_by_hand(before, record.sent, changes)
        np.testing.assert_allclose(own.state.params.double().numpy(), expected, rtol=2e-5, atol=2e-6)
        sent = {block for blocks in record.sent.values() for block in blocks}
        assert own.kept(before.params, sorted(set(range(BLOCKS)) - sent))
        left_out += BLOCKS * len(record.cohort) - sum(map(len, record.sent.values()))
        kinds |= {len([b for b in record.sent.values() if block in b]) for block in OPEN}
        assert set(record.selection.blocks) == sent
    assert left_out, "else nothing was tested"
    if name in ("random", "snr", "fedlp"):
        assert kinds - {0, 5}, "some blocks came from some clients"


@pytest.mark.parametrize("name", ["random", "gradnorm", "fedlp", "fedpart"])
@pytest.mark.parametrize("step", [{"server_optimizer": "momentum"}, {"server_optimizer": "adam"}], ids=str)
def test_a_block_that_nobody_sent_keeps_its_bits_and_its_optimizers_state(step, name):
    config = settings_of(chosen_by(name, always="none"), aggregation=step, cohort=2, warmup_rounds=1)
    own, unsent = Federation(config), 0
    own.round()
    for _ in range(4):
        before, record = own.round()
        sent = {block for blocks in record.sent.values() for block in blocks}
        rest = sorted(set(range(BLOCKS)) - sent)
        assert own.kept(before.params, rest)
        for kind, vector in momentum_of(own.state).items():
            assert any(vector[run].any() for run in own.layout.runs(ALL))
            for run in own.layout.runs(rest):
                assert same_bits(vector[run], momentum_of(before)[kind][run])
        for block in sent:
            assert not own.kept(before.params, [block])
        unsent += len(rest)
    assert unsent


@pytest.mark.parametrize(
    "chosen",
    [
        {"selector": "full"},
        {"selector": "random", "budget": 4},
        {"selector": "strategic", "budget": 4, "lam": 0},
        {"selector": "fedlp", "probability": 1},
        {"selector": "drift", "budget": 9},
        {"selector": "oracle", "budget": 9},
    ],
    ids=str,
)
@pytest.mark.parametrize("rule", [{}, {"rule": "norm_clip"}, {"server_optimizer": "adam"}], ids=str)
def test_with_everybody_training_everything_the_bits_are_those_of_no_selection(chosen, rule):
    many = {"executor": "vectorized", "clients_per_batch": 3}
    for execution in ({}, many) if rule.get("rule") != "norm_clip" else ({},):
        given = {"aggregation": rule, "execution": execution}
        plain, found = (rounds_of(settings_of(chosen_, **given), 2) for chosen_ in ({}, chosen))
        assert same_bits(found[1].params, plain[1].params)
        assert [row for row, _ in found[0]] == [row for row, _ in plain[0]]


def test_clipping_is_of_what_a_client_sends():
    limit = 0.01
    for name in ("fedlp", "gradnorm"):
        aggregation = {"rule": "norm_clip", "clip": limit}
        own = Federation(settings_of(chosen_by(name), aggregation=aggregation))
        before, record = own.round()
        changes = {}
        for client, sent in record.sent.items():
            change = own.alone(before, client, record.client_choice.orders.trained[client])
            change[~np.any([own.places(block) for block in sent] or [False], axis=0)] = 0
            assert np.linalg.norm(change) > limit or not sent, "else nothing is clipped"
            changes[client] = change * min(1, limit / max(np.linalg.norm(change), 1e-9))
        expected = before.params.double().numpy() + own.mean_by_hand(before, record.sent, changes)
        np.testing.assert_allclose(own.state.params.double().numpy(), expected, rtol=1e-5, atol=1e-6)


# --- who trains does not matter ------------------------------------------------------------------


@linux_only
@pytest.mark.parametrize("clients_per_batch", [1, 3])
@pytest.mark.parametrize("name", ["strategic", "snr", "fedlp", "fedluar", "drift", "oracle"])
def test_processes_give_the_bits_and_the_logs_of_one_process(name, clients_per_batch):
    selection = chosen_by(name, **({"budget": 2} if name == "fedluar" else {}))
    one = "serial" if clients_per_batch == 1 else "vectorized"
    given = {"lanes": 3, "clients_per_batch": clients_per_batch}
    expected = rounds_of(settings_of(selection, execution={"executor": one, **given}))
    found = rounds_of(settings_of(selection, execution={"executor": "processes", "workers": 2, **given}))
    assert found[0] == expected[0]
    assert same_bits(found[1].params, expected[1].params)
    if clients_per_batch > 1:
        alone = rounds_of(settings_of(selection))
        assert [row[1]["client_blocks"] for row in alone[0]] == [row[1]["client_blocks"] for row in found[0]]
        torch.testing.assert_close(alone[1].params, found[1].params, rtol=1e-4, atol=1e-5)


# --- warm-up -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SELECTORS, "fedluar"])
def test_warm_up_rounds_are_those_of_no_selection(name):
    selection = chosen_by(name, **({"budget": 2} if name == "fedluar" else {}))
    plain = rounds_of(settings_of({}), 2)
    told, state = rounds_of(settings_of(selection, warmup_rounds=2), 2)
    assert same_bits(state.params, plain[1].params)
    for (metrics, row), (expected, _) in zip(told, plain[0], strict=True):
        assert metrics["bytes_up"] == expected["bytes_up"]
        assert metrics["selected"] == ["0", "2", "4", "6", "8"]
        assert not {"client_blocks", "sent_blocks", "gains", "probed"} & row.keys()


# --- with FedTLU's choice on the server ----------------------------------------------------------


@pytest.mark.parametrize("selector", ["fedtlu", "random", "last"])
def test_the_server_applies_of_its_choice_what_somebody_sent(selector):
    selection = {"selector": selector, "keep": 2, "unique": "always"}
    config = settings_of(chosen_by("random", always="none"), selection=selection, cohort=2)
    own, dropped = Federation(config), 0
    for _ in range(6):
        before, record = own.round()
        sent = {block for blocks in record.sent.values() for block in blocks}
        applied = set(record.selection.blocks)
        assert applied <= sent
        assert len(applied & set(OPEN)) <= 2
        assert own.kept(before.params, sorted(set(range(BLOCKS)) - applied))
        assert all(not own.kept(before.params, [block]) for block in applied)
        dropped += len(sent - applied)
        if selector == "fedtlu":
            assert len(applied & set(OPEN)) == min(2, len(sent & set(OPEN)))
    assert dropped or selector == "fedtlu"


@pytest.mark.parametrize("clients_per_batch", [1, 3])
def test_agreement_is_of_those_who_sent_a_block(clients_per_batch):
    selection = {"selector": "fedtlu", "metric": "agreement", "pooling": "pooled", "keep": 2}
    execution = {
        "executor": "serial" if clients_per_batch == 1 else "vectorized",
        "clients_per_batch": clients_per_batch,
    }
    config = settings_of(chosen_by("random"), selection=selection, execution=execution)
    own = Federation(config)
    before, record = own.round()
    changes = {client: own.alone(before, client, blocks) for client, blocks in record.sent.items()}
    for block in range(BLOCKS):
        at = own.places(block)
        senders = {client: own.samples(client) for client, sent in record.sent.items() if block in sent}
        value = -1.0
        if senders:
            total = sum(n * changes[client][at] for client, n in senders.items())
            value = np.linalg.norm(total) / sum(
                n * np.linalg.norm(changes[client][at]) for client, n in senders.items()
            )
        assert float(record.values.blocks[block]) == pytest.approx(value, rel=1e-3)


# --- threats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sign_flip", "scaling", "noise", "random", "shift"])
@pytest.mark.parametrize("name", ["top", "fedlp", "drift"])
def test_no_attacker_changes_a_block_that_it_was_not_told_to_send(kind, name):
    for clients_per_batch in (1, 3):
        executor = "serial" if clients_per_batch == 1 else "vectorized"
        config = settings_of(
            chosen_by(name, always="none"),
            threats=[f"{kind}:1.0"],
            execution={"executor": executor, "clients_per_batch": clients_per_batch},
        )
        own = Federation(config)
        before, record = own.round()
        sent = {block for blocks in record.sent.values() for block in blocks}
        assert own.kept(before.params, sorted(set(range(BLOCKS)) - sent))
        assert not own.kept(before.params, sorted(sent))
        if name == "top":
            assert sent == {HEAD, 3}


@pytest.mark.parametrize("name", ["gradnorm", "fedlp"])
def test_a_flipped_sign_flips_what_is_sent(name):
    config = settings_of(chosen_by(name), threats=["sign_flip:1.0:2.0"])
    own = Federation(config)
    before, record = own.round()
    trained = record.client_choice.orders.trained
    changes = {client: -2 * own.alone(before, client, trained[client]) for client in record.cohort}
    expected = before.params.double().numpy() + own.mean_by_hand(before, record.sent, changes)
    np.testing.assert_allclose(own.state.params.double().numpy(), expected, rtol=1e-5, atol=1e-6)


# --- what is not finite --------------------------------------------------------------------------


def _overflow(monkeypatch, clients, block):
    """Has these clients come out of training with Inf in a block, though their loss was finite."""
    train = LocalTrainer.train

    def trained(self, *arguments):
        update = train(self, *arguments)
        if arguments[4] not in clients:
            return update
        for run in self.layout.runs([block]):
            update.params[run] = math.inf
        return update

    monkeypatch.setattr(LocalTrainer, "train", trained)


@pytest.mark.parametrize("name", ["fedlp", "drift", "oracle"])
def test_a_client_is_refused_for_what_it_sends_not_for_what_it_keeps(name, monkeypatch):
    """As where clients are trained at once, of whom only what is sent is looked at."""
    own = Federation(settings_of(chosen_by(name, always="none")))
    before, plain = own.round()
    honest, told = own.state, plain.sent
    client = next(c for c, sent in told.items() if 1 not in sent and sent)
    for block in (1, told[client][0]):
        own.state = before
        with monkeypatch.context() as patch:
            _overflow(patch, {client}, block)
            _, record = own.round()
        if block == 1 or name in ("drift", "oracle"):  # it moved by no number: others are sent
            assert block not in record.sent[client]
            assert record.refused == []
        else:
            assert record.refused == [client]
        assert own.state.params.isfinite().all()
        if block == 1 and name == "fedlp":
            assert same_bits(own.state.params, honest.params)


@pytest.mark.parametrize(
    "name", ["full", "random", "strategic", "fedpart", "fedlp", "drift", "oracle", "fedluar"]
)
@pytest.mark.parametrize("step", [{}, {"server_optimizer": "adam"}], ids=str)
def test_when_every_client_is_refused_nothing_changes(name, step, monkeypatch):
    selection = chosen_by(name, **({"budget": 2} if name == "fedluar" else {}))
    own = Federation(settings_of(selection, aggregation=step))
    own.round()
    own.round()
    with monkeypatch.context() as patch:
        for block in ALL:
            _overflow(patch, set(range(12)), block)
        patch.setattr(
            "fedtlu_fast.clients.trainer.isfinite", lambda loss: False
        )  # of drift, which sends what is finite
        before, record = own.round()
    assert sorted(record.refused) == sorted(record.cohort)
    assert same_bits(own.state.params, before.params)
    assert record.selection.blocks == ()
    assert last_change(own.state) is last_change(before)
    own.round()
    assert not same_bits(own.state.params, before.params)


# --- changes that are used again (FedLUAR) -------------------------------------------------------


@pytest.mark.parametrize("warmup", [0, 2])
def test_blocks_that_are_not_sent_change_as_in_the_round_before(warmup):
    selection = {"selector": "fedluar", "budget": 2, "frozen": "0"}
    own, again = Federation(settings_of(selection, warmup_rounds=warmup)), set()
    for index in range(1, 7):
        before, record = own.round()
        if index <= warmup:
            continue
        assert own.kept(before.params, [0]), "frozen, whatever it did in the warm-up"
        (sent,) = set(record.sent.values())
        skipped = set(ALL) - {0} - set(sent)
        # A change of the warm-up is not used again: arms of a comparison share it.
        assert len(skipped) == (0 if index == warmup + 1 else 1)
        again |= skipped
        for run in own.layout.runs(skipped):
            expected = before.params[run] + last_change(before)[run]
            assert same_bits(own.state.params[run], expected)
            assert same_bits(last_change(own.state)[run], last_change(before)[run])
        assert set(record.selection.blocks) == {1, 2, 3, HEAD}
        changes = {client: own.alone(before, client, (1, 2, 3, HEAD)) for client in record.cohort}
        mean = own.mean_by_hand(before, record.sent, changes)
        for block in sent:
            at = own.places(block)
            moved = (own.state.params.double() - before.params.double()).numpy()
            np.testing.assert_allclose(moved[at], mean[at], rtol=1e-4, atol=1e-6)
        row = metrics_row(own.server, own.state, record)
        sizes = own.layout.block_sizes()
        assert row["bytes_up"] == 4 * len(record.cohort) * sum(sizes[block] for block in sent)
    assert len(again) > 1


def test_a_change_that_is_used_again_goes_through_the_servers_optimizer_too():
    selection = {"selector": "fedluar", "budget": 1}
    own = Federation(settings_of(selection, aggregation={"server_optimizer": "momentum"}))
    own.round()
    before, record = own.round()
    (sent,) = set(record.sent.values())
    for run in own.layout.runs(set(ALL) - set(sent)):
        momentum = momentum_of(before)["momentum"][run].double() * 0.9 + last_change(before)[run].double()
        assert same_bits(momentum_of(own.state)["momentum"][run], momentum.float())
        assert not same_bits(own.state.params[run], before.params[run])


@pytest.mark.parametrize("name", ["top", "gradnorm"])
def test_a_change_left_over_by_another_rule_is_not_used(name):
    own, plain = (Federation(settings_of(chosen_by(name, always="none"), cohort=2)) for _ in range(2))
    left = PartMemory({"change": torch.ones_like(own.state.params)})
    own.state = replace(own.state, memory={recycling.PART: left})
    own.round()
    plain.round()
    assert same_bits(own.state.params, plain.state.params)


# --- draws ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["random", "fedlp", "gradnorm", "rgn", "snr", "top"])
def test_a_clients_orders_do_not_depend_on_who_else_is_there(name):
    own = Federation(settings_of(chosen_by(name)))
    rule, clients = own.server.client_rule, list(range(12))
    metrics = {name: np.random.default_rng(0).random((12, BLOCKS))}

    def orders(some, index=1):
        known = {key: value[some] for key, value in metrics.items()}
        found = rule.orders(index, some, known, own.state.params)
        return {client: found.for_client(client) for client in some}

    together = orders(clients)
    assert orders([7, 3, 11]) == {client: together[client] for client in (7, 3, 11)}
    assert orders([5]) == {5: together[5]}
    if name in ("random", "fedlp"):
        assert orders(clients, 2) != together
        assert len(set(together.values())) > 1


def test_drift_sends_what_moved_furthest():
    own = Federation(settings_of({"selector": "drift", "budget": 2, "frozen": "2"}))
    for _ in range(3):
        before, record = own.round()
        for client, sent in record.sent.items():
            change = own.alone(before, client, (0, 2, 3, HEAD))
            norms = {block: np.linalg.norm(change[own.places(block)]) for block in (0, 2, 3)}
            furthest = sorted(norms, key=norms.__getitem__)[1:]
            assert sent == (*sorted(furthest), HEAD)
            assert record.client_choice.orders.trained[client] == (0, 2, 3, HEAD)
