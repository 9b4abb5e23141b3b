"""Tests clients that choose by the loss on samples that they keep back, against float64 written out."""

import json

import numpy as np
import pytest
import torch
from support.choosing import HEAD, OPEN, Federation, chosen_by, same_bits, settings_of
from support.federations import rows, tiny, write_text
from torch import nn

import fedtlu_fast as ft
from fedtlu_fast import InputError, simulate
from fedtlu_fast.client_steps.step import ClientContext
from fedtlu_fast.clients.client_errors import ClientError
from fedtlu_fast.clients.trainer import ClientStart, ClientUpdate
from fedtlu_fast.data.sources.synthetic import SyntheticPopulation
from fedtlu_fast.errors import WorkerError
from fedtlu_fast.experiments.variants import with_variant
from fedtlu_fast.parts import part
from fedtlu_fast.scoring.block_metrics import asks
from fedtlu_fast.selection import Selector
from fedtlu_fast.simulation.evaluation import local_test
from fedtlu_fast.simulation.own_sample import OwnSamples
from fedtlu_fast.testing import check_selector

WAYS = {"serial": {}, "vectorised": {"executor": "vectorized", "clients_per_batch": 3}}
CHOSEN = {"selector": "oracle", "budget": 2, "frozen": "2"}


def places_to_look_at(federation, client):
    """The samples that a client looks at with local_held_out=0.5, as float64 features and labels."""
    held = federation.population.held_out(client)
    count = min(max(1, len(held) - 1), max(1, round(0.5 * len(held))))
    own = [at * len(held) // count for at in range(count)]
    features, labels = held.all()
    return features.double().numpy()[own], labels.numpy()[own]


def loss_by_hand(params, layout, samples):
    """The mean cross-entropy of the perceptron with these parameters [P], in float64."""
    values, labels = samples
    params = np.asarray(params, np.float64)
    tensors = [params[x.offset : x.offset + x.numel].reshape(x.shape) for x in layout.layers]
    for at in range(0, len(tensors), 2):
        values = values @ tensors[at].T + tensors[at + 1]
        if at + 2 < len(tensors):
            values = np.maximum(values, 0)
    top = values.max(axis=1)
    normal = top + np.log(np.exp(values - top[:, None]).sum(axis=1))
    return float((normal - values[np.arange(len(labels)), labels]).mean())


def benefits_by_hand(federation, before, client, change, always=(HEAD,)):
    """The decrease of the loss by each open block alone, beside those that are sent in any case."""
    samples = places_to_look_at(federation, client)

    def loss(blocks):
        params = before.params.double().numpy().copy()
        for block in blocks:
            at = federation.places(block)
            params[at] += change[at]
        return loss_by_hand(params, federation.layout, samples)

    return {block: loss(always) - loss((*always, block)) for block in OPEN}


@pytest.mark.parametrize("execution", WAYS.values(), ids=WAYS)
def test_each_client_sends_the_blocks_that_lower_its_own_loss_most(execution):
    own, clear = Federation(settings_of(CHOSEN, execution=execution)), 0
    for _ in range(3):
        before, record = own.round()
        for client, sent in record.sent.items():
            assert record.client_choice.orders.trained[client] == (0, 2, 3, HEAD)
            gains = benefits_by_hand(own, before, client, own.alone(before, client, (0, 2, 3, HEAD)))
            ranked = sorted((0, 2, 3), key=gains.__getitem__)
            if gains[ranked[1]] - gains[ranked[0]] > 1e-4:
                assert sent == (*sorted(ranked[1:]), HEAD)
                clear += 1
    assert clear >= 8


def looking(federation, seed=0, always=(HEAD,)):
    """One client's losses after a change that is drawn, and the change."""
    state, layout = federation.state, federation.layout
    change = torch.from_numpy(np.random.default_rng(seed).normal(0, 0.2, layout.size)).float()
    for run in layout.runs([1]):
        change[run] = 0
    facts = federation.server.steps.facts
    start = ClientStart(state.params, state.buffers, federation.population.train(3))
    client = ClientContext(facts, 3, 1, state.params, state.buffers, start=start)
    update = ClientUpdate(state.params + change, state.buffers, 4, 1, 0.5)
    samples = OwnSamples(federation.trainer, federation.population, 0.5, 2)
    return samples.of(client, update, always), update


def test_losses_are_those_of_the_global_model_with_these_blocks_applied(monkeypatch):
    federation = Federation(settings_of(CHOSEN))
    held, update = looking(federation)
    change = update.params.double().numpy() - federation.state.params.double().numpy()
    asked, evaluate = [], type(federation.trainer.task).evaluate
    monkeypatch.setattr(
        type(federation.trainer.task), "evaluate", lambda *given: asked.append(1) or evaluate(*given)
    )
    before = federation.trainer.params.clone()
    samples = places_to_look_at(federation, 3)
    for blocks in ((), (0,), (0, 3), (HEAD,), (1,), (0, 1, 3)):
        params = federation.state.params.double().numpy().copy()
        for block in {*blocks, HEAD}:
            params[federation.places(block)] += change[federation.places(block)]
        expected = loss_by_hand(params, federation.layout, samples)
        assert held.loss(blocks) == pytest.approx(expected, rel=1e-5)
        assert same_bits(federation.trainer.params, before), "the model has its parameters again"
    assert len(asked) == 3, "what makes no difference is not measured again"


def test_the_gradient_is_the_slope_before_the_change():
    federation = Federation(settings_of(CHOSEN))
    held, _ = looking(federation)
    before = federation.trainer.params.clone()
    gradient = held.gradient().double().numpy()
    assert same_bits(federation.trainer.params, before)
    params, samples = federation.state.params.double().numpy(), places_to_look_at(federation, 3)
    step = 1e-5 * gradient / np.linalg.norm(gradient)
    up, down = (loss_by_hand(params + way * step, federation.layout, samples) for way in (1, -1))
    assert (up - down) / 2e-5 == pytest.approx(np.linalg.norm(gradient), rel=1e-3)


def test_with_personal_blocks_a_client_looks_at_its_own_model():
    federation = Federation(settings_of({"selector": "oracle", "budget": 1, "personal": "8"}))
    federation.round()
    state, layout = federation.state, federation.layout
    client = next(iter(federation.personal))
    step = federation.server.steps.steps[0].part
    own, _ = step.model_of((state.params, state.buffers), federation.personal[client])
    assert not same_bits(own, state.params)
    start = ClientStart(own, state.buffers, federation.population.train(client))
    context = ClientContext(
        federation.server.steps.facts, client, 2, state.params, state.buffers, start=start
    )
    update = ClientUpdate(state.params.clone(), state.buffers, 4, 1, 0.5)
    samples = OwnSamples(federation.trainer, federation.population, 0.5, 64)
    expected = loss_by_hand(own, layout, places_to_look_at(federation, client))
    assert samples.of(context, update, ()).loss(()) == pytest.approx(expected, rel=1e-5)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)

    def forward(self, inputs):
        return self.last(self.norm(self.first(inputs)))


def own_data(tests):
    draws = torch.Generator().manual_seed(1)

    def some(count):
        inputs = torch.randn(count, 6, generator=draws)
        return inputs, inputs[:, :3].argmax(dim=1)

    held = None if tests is None else [some(count) for count in tests]
    return ft.Datasets(train=[some(12) for _ in range(4)], test=some(30), held_out=held)


def federation_of(tests, errors="stop", **over):
    torch.manual_seed(0)
    task = ft.SupervisedTask(Normed(), nn.CrossEntropyLoss())
    given = {
        "cohort": 4,
        "client_selection": {"selector": "oracle", "budget": 1},
        "selection": "full",
        "executor": "serial",
        **over,
    }
    settings = {"evaluation": {"local_held_out": 0.5}, "execution": {"client_errors": errors}}
    return ft.Federation(task, own_data(tests), settings=settings, **given)


def test_statistics_of_batches_are_those_after_the_training_and_come_back_unchanged():
    """The bits of a client that sends all blocks do not depend on whether it looked at samples."""
    whole = {"client_selection": {"selector": "oracle", "budget": 9}}
    looked = federation_of([6] * 4, **whole).run(rounds=2)
    plain = federation_of([6] * 4, client_selection={"selector": "full"}).run(rounds=2)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, looked.model.state_dict()[name]), name


def test_data_without_tests_of_the_clients_are_refused():
    with pytest.raises(InputError, match="tests of their own"):
        federation_of(None).run(rounds=1)


def test_a_client_without_samples_stops_the_run_or_is_left_out():
    with pytest.raises(ClientError, match=r"client 2.*keeps back"):
        federation_of([6, 6, 0, 6]).run(rounds=1)
    dropped = federation_of([6, 6, 0, 6], errors="drop").run(rounds=1)
    assert list(dropped.metrics[0]["failed"]) == ["2"]


def test_local_tests_do_not_count_what_clients_look_at():
    federation = Federation(settings_of({}, evaluation={"local_clients": 12}))
    expected = []
    for client in range(12):
        held = federation.population.held_out(client)
        count = min(max(1, len(held) - 1), max(1, round(0.5 * len(held))))
        rest = [at for at in range(len(held)) if at not in [n * len(held) // count for n in range(count)]]
        if rest:
            features, labels = held.all()
            samples = features.double().numpy()[rest], labels.numpy()[rest]
            expected.append(loss_by_hand(federation.state.params, federation.layout, samples))
    found = local_test(federation.server, federation.state)
    assert found.loss == pytest.approx(np.mean(expected), rel=1e-5)


def costs_of(out):
    return json.loads((out / "costs.json").read_text(encoding="utf-8"))


def test_its_forward_passes_are_counted(tmp_path):
    over = {"rounds": 2, "warmup_rounds": 1}
    simulate(settings_of(chosen_by("oracle"), **over), out=tmp_path / "oracle")
    simulate(settings_of(chosen_by("drift"), **over), out=tmp_path / "drift")
    costs, other = (costs_of(tmp_path / name) for name in ("oracle", "drift"))
    federation = Federation(settings_of(chosen_by("oracle"), **over))
    cohort = rows(tmp_path / "oracle" / "selection.jsonl")[1]["cohort"]
    seen = sum(len(places_to_look_at(federation, client)[1]) for client in cohort)
    forward = costs["blocks"]["forward_flops"] * seen * (len(OPEN) + 1)
    assert [row["probe_flops"] for row in costs["rounds"]] == [0, forward]
    assert costs["rounds"][1]["forward_flops"] == other["rounds"][1]["forward_flops"] + forward


# --- with others ---------------------------------------------------------------------------------


def test_clients_and_the_server_may_both_look_at_samples(tmp_path):
    text = write_text(tmp_path / "text.txt")
    evaluation = {"held_out": 5, "local_held_out": 0.5, "benefit": True, "trained_clients": 0}
    config = with_variant(tiny(text, evaluation=evaluation), "oracle@2+selection.selector=oracle")
    assert config.client_selection.name_of("selector") == config.selection.name_of("selector") == "oracle"
    simulate(config, out=tmp_path / "run")
    chosen = 0
    targeted = [row for row in rows(tmp_path / "run" / "selection.jsonl") if not row["warmup"]]
    for row in targeted:
        names = list(row["block_scores"])
        sent = {names[block] for own in row["sent_blocks"] for block in own}
        alone = row["benefit"]["alone"]
        best = min(alone, key=alone.__getitem__)
        # A block that nobody sent is as good as no block, and better than one that raises the loss.
        assert [block for block in row["selected"] if block in alone] == ([best] if best in sent else [])
        assert set(row["selected"]) <= sent
        chosen += best in sent
    assert len(targeted) == 3
    assert chosen


@asks("held_out")
def by_slope(change):
    """Ranks by how far the change goes down the slope on the samples that the client keeps back."""
    slope = change.held_out.gradient() * change.vector
    runs = [change.layout.runs([block]) for block in range(len(change.layout.blocks))]
    return [-float(sum(slope[run].sum() for run in own)) for own in runs]


def test_a_function_of_ones_own_may_look_at_the_samples():
    check_selector(by_slope, "clients")
    own = Federation(settings_of({"selector": by_slope, "budget": 1}))
    before, record = own.round()
    for client, sent in record.sent.items():
        change = own.alone(before, client, (*OPEN, HEAD))
        params, samples = before.params.double().numpy(), places_to_look_at(own, client)
        falls = {}
        for block in OPEN:
            step = np.where(own.places(block), change, 0) * 1e-4
            falls[block] = loss_by_hand(params - step, own.layout, samples) - loss_by_hand(
                params + step, own.layout, samples
            )
        first, second = sorted(falls, key=falls.__getitem__)[:-3:-1]
        if falls[first] - falls[second] > 1e-6:
            assert sent == (first, HEAD)


# --- refused -------------------------------------------------------------------------------------


@part
class Early(Selector):
    needs = ("held_out",)

    def choose(self, evidence, room):
        return room.whole[None, :]


@pytest.mark.parametrize(
    ("chosen", "over", "message"),
    [
        ({"selector": "oracle"}, {"evaluation": {"local_held_out": 0}}, "evaluation.local_held_out=0.5"),
        ({"selector": "strategic", "metric": "benefit"}, {}, "after training"),
        ({"selector": Early()}, {}, "after training"),
    ],
)
def test_what_cannot_look_at_samples_is_refused(chosen, over, message):
    with pytest.raises(InputError, match=message) as error:
        settings_of(chosen, **over)
    assert error.value.field == "client_selection.selector"


def test_the_compiled_engine_is_refused():
    with pytest.raises(InputError, match="the compiled engine trains every layer"):
        simulate(settings_of(chosen_by("oracle"), execution={"engine": "compiled"}))


@pytest.mark.parametrize("execution", WAYS.values(), ids=WAYS)
def test_memory_that_is_short_is_said_and_no_client_is_blamed(execution, monkeypatch):
    own = Federation(settings_of(chosen_by("oracle"), execution={**execution, "client_errors": "drop"}))

    def evaluate(*_):
        raise MemoryError

    monkeypatch.setattr(type(own.trainer.task), "evaluate", evaluate)
    with pytest.raises(WorkerError, match="out of memory"):
        own.round()


def test_a_client_whose_samples_cannot_be_read_fails_alone(monkeypatch):
    read = SyntheticPopulation.held_out

    def held_out(self, client):
        if client == bad:
            raise OSError("unplugged")
        return read(self, client)

    config = settings_of(chosen_by("oracle"), execution={"client_errors": "drop"})
    _, plain = Federation(config).round()
    bad = plain.cohort[1]
    monkeypatch.setattr(SyntheticPopulation, "held_out", held_out)
    _, record = Federation(config).round()
    assert record.sent == {client: sent for client, sent in plain.sent.items() if client != bad}
