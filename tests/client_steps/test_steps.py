"""A user's own client steps: around training, on the server, with a memory, and with every engine."""

import sys
from contextlib import closing
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from support.choosing import Wrapped, settings_of
from torch import nn

from fedtlu_fast import InputError, ParameterLayout
from fedtlu_fast.build.executor import make_executor
from fedtlu_fast.build.parts import make_parts
from fedtlu_fast.build.server import make_server
from fedtlu_fast.client_steps import ClientStep, ClientSteps, RoundChange, RunFacts, ServerHalf
from fedtlu_fast.client_steps.orders import Order
from fedtlu_fast.client_steps.sending import SendChosen
from fedtlu_fast.client_steps.step import wants
from fedtlu_fast.client_steps.threats import ALittleIsEnough, LabelNoise, SignFlip, TokenNoise
from fedtlu_fast.clients.compiled import CompiledTrainer
from fedtlu_fast.clients.groups import VectorizedGroups
from fedtlu_fast.clients.trainer import ClientStart, ClientUpdate
from fedtlu_fast.data.population import Samples
from fedtlu_fast.part_memory import part_of_step, recall
from fedtlu_fast.simulation.round import run_round
from fedtlu_fast.simulation.server import initial_state

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are forked")
LAYOUT = ParameterLayout.from_module(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)))
EXECUTIONS = {
    "serial": {"executor": "serial", "clients_per_batch": 1, "lanes": 3},
    "processes": {"executor": "processes", "workers": 2, "clients_per_batch": 1, "lanes": 3},
    "vectorized": {"executor": "vectorized", "clients_per_batch": 4, "lanes": 3},
}


@dataclass(frozen=True)
class Halve(ClientStep):
    """Some clients send half of their change."""

    share: float = 0.3

    def after(self, client, update):
        return replace(update, params=(client.params + update.params) / 2)


@dataclass(frozen=True)
class Drift(ClientStep):
    """Corrects gradients by a running sum of the client's changes and by a running sum on the server."""

    rate: float = 0.1
    changes: ClassVar[frozenset[str]] = frozenset({"correction"})
    reads: ClassVar[tuple[str, ...]] = ("mean",)

    def before(self, client, start):
        own = torch.tensor(client.memory.get("sum", np.zeros(len(client.params), np.float32)))
        mean = torch.tensor(client.server.get("mean", np.zeros(len(client.params), np.float32)))
        return replace(start, correction=self.rate * (own - mean))

    def after(self, client, update):
        own = client.memory.get("sum", np.zeros(len(client.params), np.float32))
        change = (update.params - client.params).numpy()
        return replace(update, memory={"sum": own + change, "times": int(client.memory.get("times", 0)) + 1})

    def server_half(self, server):
        return DriftServer()


class DriftServer(ServerHalf):
    def complete(self, aggregated: RoundChange) -> RoundChange:
        self.server = {"mean": torch.from_numpy(sum(own["sum"] for own in aggregated.memory.values()))}
        return aggregated


class Rounds:
    """Rounds of a small federation whose clients take these steps."""

    def __init__(self, *steps, execution="serial", wrap=None):
        config = settings_of({}, execution={**EXECUTIONS[execution], "client_errors": "drop"})
        parts = make_parts(config)
        layout, trainer = parts.trainer.layout, parts.trainer
        self.steps = ClientSteps(
            steps, RunFacts(layout, config.seed, config.clients, config.training.optimizer.lr)
        )
        self.population = wrap(parts.population) if wrap else parts.population
        self.trainer, self.state = trainer, initial_state(layout, trainer.task.model)
        self.executor = make_executor(config, self.population, trainer, self.steps)
        self.server = make_server(config, layout, self.population, trainer, self.executor, self.steps)

    def run(self, rounds=3):
        with closing(self.executor):
            for _ in range(rounds):
                self.state, self.record = run_round(self.server, self.state)
        return self.state


def client_round_of(*steps, client=0, memory=None):
    found = ClientSteps(steps, RunFacts(LAYOUT, clients=10))
    return found.on_client((torch.zeros(LAYOUT.size), torch.empty(0)), 1, client, memory=memory)


def samples(count=2):
    return Samples((torch.zeros(count, 3), torch.zeros(count, dtype=torch.int64)), np.arange(count))


def update(value):
    return ClientUpdate(torch.full((LAYOUT.size,), value), torch.empty(0), 2, 1, 0.5)


# --- one client's round ------------------------------------------------------------------------------


def test_steps_run_in_order_and_change_no_given_tensor():
    @dataclass(frozen=True)
    class Add(ClientStep):
        much: float

        def after(self, client, update):
            return replace(update, params=update.params + self.much)

    @dataclass(frozen=True)
    class Double(ClientStep):
        def after(self, client, update):
            return replace(update, params=2 * update.params)

    given = update(1.0)
    assert client_round_of(Add(1.0), Double()).after_training(given).params.unique().tolist() == [4.0]
    assert client_round_of(Double(), Add(1.0)).after_training(given).params.unique().tolist() == [3.0]
    assert given.params.unique().tolist() == [1.0]


def test_a_step_sees_the_start_of_the_training():
    seen = []

    @dataclass(frozen=True)
    class Look(ClientStep):
        def after(self, client, update):
            seen.append(client.start)
            return update

    client_round = client_round_of(Look())
    start = client_round.before_training(samples())
    client_round.after_training(update(1.0))
    assert seen == [start]


def test_each_step_remembers_under_its_own_name():
    @dataclass(frozen=True)
    class Count(ClientStep):
        def after(self, client, update):
            return replace(update, memory={"times": int(client.memory.get("times", 0)) + 1})

    client_round = client_round_of(Count(), Count(), memory={"Count": {"times": 4}})
    assert client_round.after_training(update(1.0)).memory == {"times": 1}
    assert client_round.memory == {"Count": {"times": 5}, "Count#2": {"times": 1}}


@pytest.mark.parametrize("what", ["params", "buffers", "samples"])
def test_a_step_changes_only_the_fields_that_it_names(what):
    @dataclass(frozen=True)
    class Wrong(ClientStep):
        changes: ClassVar[frozenset[str]] = frozenset({"correction"})

        def before(self, client, start):
            return replace(start, **{what: samples() if what == "samples" else torch.zeros(3)})

    with pytest.raises(InputError, match=rf"client_steps.Wrong: got 'another {what} from before\(\)'"):
        client_round_of(Wrong()).before_training(samples())


@pytest.mark.parametrize("stray", [None, 1.0, -0.0], ids=["kept", "changed", "minus zero"])
def test_what_is_not_sent_is_cut_off_to_the_bit_and_copied_only_where_something_is(stray):
    sent, unsent = LAYOUT.runs([0])[0], LAYOUT.runs([1])[0]
    given = update(2.0)
    given.params[unsent] = 0.0 if stray is None else stray
    client_round = ClientSteps([SendChosen()], RunFacts(LAYOUT, clients=10)).on_client(
        (torch.zeros(LAYOUT.size), torch.empty(0)), 1, 0, Order((0,), (0,))
    )
    client_round.before_training(samples())
    found = client_round.after_training(given)
    assert found.sent == (0,)
    assert (found.params[sent] == 2).all()
    assert not found.params[unsent].view(torch.int32).any(), "zeros as the server has them, none of them -0"
    assert (found.params is given.params) == (stray is None)


def test_steps_that_do_not_fit_the_data_are_refused():
    facts = RunFacts(LAYOUT, clients=10)
    for threat in (LabelNoise(), TokenNoise()):
        with pytest.raises(InputError, match="threats: got"):
            ClientSteps([threat], facts)
    with pytest.raises(InputError, match=r"shares of 1\.1 in all"):
        ClientSteps([Halve(0.6), SignFlip(0.5)], facts)


# --- what engines can take -------------------------------------------------------------------------


def test_a_steps_requests_to_the_engine_follow_from_its_hooks():
    assert wants(Halve()) == []
    assert wants(LabelNoise()) == []
    assert wants(Drift()) == ["correction"]
    assert wants(ALittleIsEnough()) == ["each vector"]
    assert wants(SendChosen()) == ["blocks"]

    class Anything(ClientStep):
        def before(self, client, start):
            return start

        def own_model(self, client, vectors):
            return vectors

    assert wants(Anything()) == ["own model", "blocks", "correction"], "what is not declared is presumed"


def test_engines_say_which_requests_they_do_not_support():
    every = ("blocks", "correction", "each vector", "own model")
    eager = Rounds().trainer
    assert not any(eager.supports(want) for want in every)
    assert [bool(CompiledTrainer.supports(want, 1)) for want in every] == [True, True, False, False]
    assert [bool(CompiledTrainer.supports(want, 5)) for want in every] == [True, True, True, True]
    assert [bool(VectorizedGroups.supports(want, 5)) for want in every] == [False, False, True, True]


# --- in rounds -------------------------------------------------------------------------------------


def test_a_step_with_a_share_applies_to_that_share_of_the_clients():
    halved = Rounds(Halve(0.5))
    state = halved.state
    found = halved.run(1)
    population, layout = halved.population, halved.trainer.layout
    total = sum(len(population.train(client)) for client in halved.record.cohort)
    expected = torch.zeros(layout.size, dtype=torch.float64)
    bad = halved.steps.struck(halved.record.cohort)
    assert 0 < len(bad) < len(halved.record.cohort)
    for client in halved.record.cohort:
        own = population.train(client)
        change = halved.trainer.train(state.params, state.buffers, own, 1, client).params - state.params
        expected += len(own) / total * change.double() * (0.5 if client in bad else 1.0)
    torch.testing.assert_close((found.params - state.params).double(), expected, rtol=1e-4, atol=1e-6)


def test_a_correction_is_the_gradient_of_a_linear_term(monkeypatch):
    plain = Rounds()
    trainer, own, start = plain.trainer, plain.population.train(0), plain.state.params
    pull = torch.linspace(-1, 1, trainer.layout.size)
    given = ClientStart(start, plain.state.buffers, own, correction=pull)
    corrected = trainer.train_one(given, 1, 0).params.clone()
    frozen = trainer.train_one(replace(given, blocks=(1, 2)), 1, 0).params.clone()
    places, inner = trainer.layout.views(pull), trainer._loss

    def with_term(batch):
        named = dict(trainer.task.model.named_parameters())
        return inner(batch) + sum((place * named[name]).sum() for name, place in places.items())

    monkeypatch.setattr(trainer, "_loss", with_term)
    expected = trainer.train_one(replace(given, correction=None), 1, 0).params
    torch.testing.assert_close(corrected, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(corrected, start, atol=1e-3)
    for run in trainer.layout.runs([0]):
        assert torch.equal(frozen[run], start[run]), "frozen blocks keep their bits"


@linux_only
def test_memory_and_corrections_give_the_same_bits_in_workers():
    found = {name: Rounds(Drift(), execution=name).run() for name in EXECUTIONS}
    serial, processes = found["serial"], found["processes"]
    assert torch.equal(serial.params, processes.params)
    mine, other = (recall(state.memory, part_of_step("Drift")) for state in (serial, processes))
    assert torch.equal(mine.server["mean"], other.server["mean"])
    assert mine.clients["times"] == other.clients["times"]
    assert max(mine.clients["times"].values()) > 1, "some clients trained again"
    for client, value in mine.clients["sum"].items():
        assert np.array_equal(value, other.clients["sum"][client])
    torch.testing.assert_close(found["vectorized"].params, serial.params, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(serial.params, Rounds().run().params, atol=1e-4)


@pytest.mark.parametrize("execution", ["serial", "vectorized"])
def test_an_error_in_a_step_fails_its_client_only(execution):
    @dataclass(frozen=True)
    class Picky(ClientStep):
        def after(self, client, update):
            if client.number % 2:
                raise ValueError("odd")
            return update

    picky = Rounds(Picky(), execution=execution)
    picky.run(1)
    odd = [client for client in picky.record.cohort if client % 2]
    assert odd
    assert sorted(picky.record.failed) == sorted(odd)
    assert all("odd" in reason for reason in picky.record.failed.values())


def test_a_failed_client_keeps_its_memory():
    broken = set()

    def happen(client, held):
        if client in broken:
            raise ValueError("no data today")
        return held

    rounds = Rounds(Drift(), wrap=lambda inner: Wrapped(inner, happen))
    rounds.state, record = run_round(rounds.server, rounds.state)
    before = recall(rounds.state.memory, part_of_step("Drift")).clients["times"]
    broken |= set(record.cohort)
    after = recall(rounds.run(2).memory, part_of_step("Drift")).clients["times"]
    assert {client: after[client] for client in before} == before


# --- the server's half -----------------------------------------------------------------------------


def test_the_servers_halves_come_in_reverse_order():
    order = []

    class Half(ServerHalf):
        def __init__(self, name):
            self.name = name

        def receive(self, arrival):
            order.append(f"receive {self.name}")
            return arrival

        def complete(self, aggregated):
            order.append(f"complete {self.name}")
            return replace(aggregated, change=aggregated.change * 2 + self.name)

    @dataclass(frozen=True)
    class Named(ClientStep):
        number: int

        def server_half(self, server):
            return Half(self.number)

    rounds = Rounds(Named(1), Named(2))
    plain = Rounds()
    start = plain.state.params
    change = plain.run(1).params - start
    found = rounds.run(1).params - start
    assert order[:2] == ["receive 2", "receive 1"]
    assert order[-2:] == ["complete 2", "complete 1"]
    torch.testing.assert_close(found, (change * 2 + 2) * 2 + 1, rtol=1e-4, atol=1e-5)
