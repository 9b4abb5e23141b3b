"""Noisy and malicious clients: their draw, their effects, and that other clients stay honest."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from support.federations import tiny, write_text
from torch import nn

from fedtlu_fast import InputError, ParameterLayout, layer_stats, score_layers, simulate
from fedtlu_fast.client_steps import Arrival, ClientSteps, RunFacts
from fedtlu_fast.client_steps.threats import Threat
from fedtlu_fast.clients.trainer import ClientUpdate
from fedtlu_fast.config import ThreatConfig
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.data.population import ArrayPopulation, Shares
from fedtlu_fast.parts import part

CLIENTS = 50


def federation(threats, execution=None, **over):
    tree = {
        "task": "classification",
        "clients": CLIENTS,
        "cohort": 12,
        "rounds": 2,
        "data": {"source": "synthetic", "classes": 4, "synthetic": {"features": 6, "fewest": 4, "most": 15}},
        "model": {"hidden": [5]},
        "training": {"lr": 0.1, "batch_size": 4},
        "selection": {"selector": "full"},
        "evaluation": {"trained_clients": 0, "local_clients": 5},
        "execution": execution or {"executor": "serial", "clients_per_batch": 1},
        "threats": threats,
    }
    return parse_config({**tree, **over})


def steps_of(*threats, clients=CLIENTS, seed=0, layout=None, **facts):
    if layout is None:
        layout = ParameterLayout.from_module(nn.Linear(1, 1))
    made = [ThreatConfig(**threat).step for threat in threats]
    return ClientSteps(made, RunFacts(layout, seed, clients, **{"tokens": 9, "labels": 9, **facts}))


def kind_of(steps, client):
    role = steps.roles.role(client)
    return None if role is None else steps.names[role]


def struck(found, clients=CLIENTS):
    return {client: kind_of(found, client) for client in range(clients) if kind_of(found, client)}


# --- who -----------------------------------------------------------------------------------------


def test_shares_are_exact_and_no_client_has_two_threats():
    both = struck(steps_of({"kind": "noise", "share": 0.2}, {"kind": "label_flip", "share": 0.5}))
    kinds = list(both.values())
    assert (kinds.count("Noise"), kinds.count("LabelFlip")) == (10, 25)
    assert struck(steps_of({"kind": "noise", "share": 1.0})).keys() == set(range(CLIENTS))


def test_threats_of_one_share_have_the_same_clients_and_other_seeds_others():
    one = struck(steps_of({"kind": "noise", "share": 0.2})).keys()
    other = struck(steps_of({"kind": "sign_flip", "share": 0.2, "strength": 3.0})).keys()
    assert one == other
    assert one != struck(steps_of({"kind": "noise", "share": 0.2}, seed=1)).keys()
    assert one < struck(steps_of({"kind": "noise", "share": 0.3})).keys(), "a larger share adds some"


def test_without_threats_no_client_has_one():
    none = steps_of()
    assert none.of(3) == []
    assert none.struck(range(9)) == []


# --- wrong data ----------------------------------------------------------------------------------


def population(labels=5, tagged=False):
    draws = np.random.default_rng(3)
    inputs = torch.from_numpy(draws.integers(0, 30, (400, 6)))
    last = torch.from_numpy(draws.integers(0, labels, (400, 6) if tagged else 400))
    if tagged:
        last[:, 4:] = -100
    parts = np.array_split(np.arange(400), 2)
    shares = Shares.of(parts)
    pool = (inputs, last) if tagged or labels else (inputs,)
    return ArrayPopulation(pool, shares, shares, pool, "")


class Spoiled:
    """A population whose clients train on samples under a threat."""

    def __init__(self, inner, steps):
        self.inner, self.steps, self.held_out = inner, steps, inner.held_out

    def train(self, client, round_index=1):
        vectors = torch.zeros(2), torch.empty(0)
        return (
            self.steps.on_client(vectors, round_index, client)
            .before_training(self.inner.train(client))
            .samples
        )


def spoiled(kind, inner, tokens=0, labels=5, strength=None):
    steps = steps_of(
        {"kind": kind, "share": 0.5, "strength": strength}, clients=2, tokens=tokens, labels=labels
    )
    bad = next(client for client in range(2) if steps.of(client))
    return Spoiled(inner, steps), bad


def test_label_l_becomes_the_label_n_minus_1_minus_l():
    inner = population()
    wrong, bad = spoiled("label_flip", inner)
    features, labels = wrong.train(bad).all()
    before = inner.train(bad).all()
    assert torch.equal(labels, 4 - before[1])
    assert torch.equal(features, before[0])
    for one, own in zip(wrong.train(1 - bad).all(), inner.train(1 - bad).all(), strict=True):
        assert torch.equal(one, own)
    for one, own in zip(wrong.held_out(bad).all(), inner.held_out(bad).all(), strict=True):
        assert torch.equal(one, own), "what it tests on stays right"


@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_label_noise_replaces_its_share_by_other_labels(strength):
    inner = population()
    wrong, bad = spoiled("label_noise", inner, strength=strength)
    after, before = wrong.train(bad).all()[1], inner.train(bad).all()[1]
    changed = float((after != before).double().mean())
    assert changed == pytest.approx(strength, abs=0.12 if strength < 1 else 0)
    assert set(after.tolist()) <= set(range(5))
    again = wrong.train(bad, round_index=2).all()[1]
    assert torch.equal(after, again), "its data are the same in every round"


def test_ignored_labels_stay_ignored():
    inner = population(tagged=True)
    for kind in ("label_flip", "label_noise", "token_noise"):
        wrong, bad = spoiled(kind, inner, tokens=30, strength=None if kind == "label_flip" else 1.0)
        tokens, labels = wrong.train(bad).all()
        before = inner.train(bad).all()
        assert torch.equal(labels == -100, before[1] == -100)
        assert torch.equal(tokens[:, 4:], before[0][:, 4:]), "nor is padding touched"
        if kind == "token_noise":
            assert (tokens[:, :4] != before[0][:, :4]).all()
            assert torch.equal(labels, before[1])
        else:
            assert torch.equal(tokens, before[0])


def test_noise_in_the_tokens_of_a_language_model():
    draws = np.random.default_rng(3)
    pool = (torch.from_numpy(draws.integers(0, 30, (400, 6))),)
    shares = Shares.of(np.array_split(np.arange(400), 2))
    inner = ArrayPopulation(pool, shares, shares, pool, "")
    wrong, bad = spoiled("token_noise", inner, tokens=30, labels=0, strength=0.5)
    (tokens,), (before,) = wrong.train(bad).all(), inner.train(bad).all()
    assert float((tokens != before).double().mean()) == pytest.approx(0.5, abs=0.06)
    assert int(tokens.min()) >= 0
    assert int(tokens.max()) < 30
    flipped, bad = spoiled("label_flip", inner, tokens=30, labels=0)
    assert torch.equal(flipped.train(bad).all()[0], 29 - inner.train(bad).all()[0])


# --- wrong updates -------------------------------------------------------------------------------


class Update:
    """An honest update of a small model, and the update that a threat makes of it."""

    def __init__(self, threat, round_index=1):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(50, 40), nn.LayerNorm(40), nn.Linear(40, 30))
        self.layout = ParameterLayout.from_module(self.model, "tensor")
        self.start = torch.randn(self.layout.size)
        self.honest = self.start + 0.01 * torch.randn(self.layout.size)
        steps = steps_of({"share": 1.0, **threat}, layout=self.layout)
        given = self.start.clone(), self.honest.clone()
        client_round = steps.on_client((self.start, torch.empty(0)), round_index, 7)
        self.sent = client_round.after_training(ClientUpdate(self.honest, torch.empty(0), 3, 2, 0.5)).params
        assert torch.equal(self.start, given[0])
        assert torch.equal(self.honest, given[1])

    @property
    def change(self):
        return self.sent - self.start

    def rms(self, vector):
        stats = layer_stats(vector, self.layout)
        return stats.l2 / stats.count.sqrt()


@pytest.mark.parametrize(("kind", "strength", "factor"), [("sign_flip", None, -1), ("sign_flip", 3.0, -3)])
def test_flipped_signs(kind, strength, factor):
    found = Update({"kind": kind, "strength": strength})
    torch.testing.assert_close(found.change, factor * (found.honest - found.start), rtol=1e-4, atol=1e-6)


def test_scaling():
    found = Update({"kind": "scaling"})
    torch.testing.assert_close(found.change, 10 * (found.honest - found.start), rtol=1e-4, atol=1e-5)


def test_noise_is_as_large_as_the_layers_change():
    found = Update({"kind": "noise", "strength": 2.0})
    ratio = found.rms(found.sent - found.honest) / found.rms(found.honest - found.start)
    large = layer_stats(found.start, found.layout).count > 1000
    torch.testing.assert_close(ratio[large], torch.full_like(ratio[large], 2.0), rtol=0.1, atol=0)


def test_a_random_update_does_not_depend_on_the_honest_one():
    found = Update({"kind": "random"})
    honest = found.honest - found.start
    cosine = torch.nn.functional.cosine_similarity(found.change, honest, dim=0)
    assert abs(float(cosine)) < 0.1
    assert float(found.change.norm() / honest.norm()) == pytest.approx(1, abs=0.1)
    other = Update({"kind": "random"}, round_index=2)
    assert not torch.equal(other.sent, found.sent)
    assert torch.equal(Update({"kind": "random"}).sent, found.sent)


def test_a_shift_raises_the_score_of_its_layers_only():
    found = Update({"kind": "shift", "layers": "2.weight", "strength": 1.0})
    before = score_layers(layer_stats(found.honest - found.start, found.layout)).excess
    after = score_layers(layer_stats(found.change, found.layout)).excess
    index = found.layout.names.index("2.weight")
    assert float(after[index]) == pytest.approx(1, abs=0.2), "mean as large as the standard deviation"
    assert float(before[index]) < 0.05
    rest = [place for place in range(len(before)) if place != index]
    torch.testing.assert_close(after[rest], before[rest])


# --- together ------------------------------------------------------------------------------------


def crafted(vectors, cohort, strength=None, received=None):
    """Returns the vector that each attacker sends after the server received these honest vectors."""
    steps = steps_of({"kind": "a_little_is_enough", "share": 1.0, "strength": strength})
    base = torch.zeros(vectors.shape[1])
    server_round = steps.on_server((base, torch.empty(0)), 1, range(cohort), {})
    for client, vector in enumerate(vectors):
        arrival = Arrival((client,), (torch.from_numpy(vector), torch.empty(0)), True, 3.0)
        assert server_round.receive(arrival) is None, "it is held back"
    sent = list(server_round.finish())
    assert [arrival.clients for arrival in sent] == [(client,) for client in range(len(vectors))]
    assert {arrival.weight for arrival in sent} == {3.0}
    assert all(torch.equal(arrival.vectors[0], sent[0].vectors[0]) for arrival in sent)
    return sent[0].vectors[0]


def test_a_little_is_enough_against_numpy():
    draws = np.random.default_rng(1)
    vectors = draws.normal(size=(24, 9)).astype(np.float32)
    exact = vectors.astype(np.float64)
    # The paper's example: 24 of 50 workers are corrupted and need two supporters, so z(24 / 26) = 1.43.
    expected = exact.mean(0) - 1.4261 * exact.std(0)
    np.testing.assert_allclose(crafted(vectors, 50).numpy(), expected, rtol=1e-4, atol=1e-4)
    expected = exact.mean(0) - 0.5 * exact.std(0)
    np.testing.assert_allclose(crafted(vectors, 50, 0.5).numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("attackers", "cohort"), [(1, 1), (1, 10), (9, 10), (10, 10), (1, 1000)])
def test_any_number_of_attackers_sends_finite_numbers(attackers, cohort):
    vectors = np.arange(attackers, dtype=np.float32)[:, None] * np.ones((1, 4), np.float32)
    assert crafted(vectors, cohort).isfinite().all()


def test_honest_clients_are_passed_on_unchanged():
    steps = steps_of({"kind": "a_little_is_enough", "share": 0.5}, clients=4)
    server_round = steps.on_server((torch.zeros(3), torch.empty(0)), 1, range(4), {})
    bad = steps.struck(range(4))
    for client in range(4):
        arrival = Arrival((client,), (torch.ones(3), torch.empty(0)), True, 1.0)
        assert (server_round.receive(arrival) is None) == (client in bad)
    assert [arrival.clients for arrival in server_round.finish()] == [(client,) for client in bad]


# --- in a run ------------------------------------------------------------------------------------

EVERYWHERE = {
    "serial": {"executor": "serial", "clients_per_batch": 1},
    "processes": {"executor": "processes", "workers": 2, "clients_per_batch": 1},
    "vectorized": {"executor": "vectorized", "clients_per_batch": 5},
    "compiled": {"executor": "serial", "engine": "compiled", "clients_per_batch": 5},
}


@pytest.mark.parametrize(
    "threat",
    [
        "label_noise:0.4",
        "label_flip:0.4",
        "noise:0.4",
        "sign_flip:0.4",
        "scaling:0.4:3",
        "random:0.4",
        "shift:0.4",
    ],
)
def test_executors_agree(threat):
    found = {name: simulate(federation(threat, execution)) for name, execution in EVERYWHERE.items()}
    assert torch.equal(found["serial"].params, found["processes"].params)
    for name in ("vectorized", "compiled"):
        torch.testing.assert_close(found[name].params, found["serial"].params, rtol=1e-4, atol=1e-5)
    clean = simulate(federation([], EVERYWHERE["serial"]))
    assert (clean.params - found["serial"].params).abs().max() > 1e-3, "it does something"
    for row in found["serial"].metrics:
        assert 1 <= len(row["adversaries"]) < 12
    assert all(row["adversaries"] == [] for row in clean.metrics)
    each = [client for row in found["serial"].metrics for client in row["adversaries"]]
    summary = found["serial"].summary
    assert summary["malicious_updates"] == len(each)
    assert summary["malicious_clients"] == len(set(each))
    assert clean.summary["malicious_clients"] is clean.summary["malicious_updates"] is None


def test_colluders_in_a_run():
    found = simulate(federation("a_little_is_enough:0.4"))
    assert torch.equal(
        found.params, simulate(federation("a_little_is_enough:0.4", EVERYWHERE["processes"])).params
    )
    clean = simulate(federation([]))
    assert (clean.params - found.params).abs().max() > 1e-4
    assert found.metrics[0]["refused"] == []


def test_a_federation_of_colluders_only_goes_on():
    assert simulate(federation("a_little_is_enough:1.0")).params.isfinite().all()


def test_an_update_that_overflows_is_refused():
    training = {"lr": 1e4, "batch_size": 4, "clip_norm": None}
    found = simulate(federation([{"kind": "scaling", "share": 0.4, "strength": 1e38}], training=training))
    assert found.params.isfinite().all()
    assert found.metrics[0]["refused"] == found.metrics[0]["adversaries"]


def test_noisy_text(tmp_path):
    text = write_text(tmp_path / "text.txt")
    clean = simulate(tiny(text))
    for kind in ("token_noise", "label_flip"):
        noisy = simulate(tiny(text, threats=[f"{kind}:0.5"]))
        assert noisy.params.isfinite().all()
        assert not torch.equal(noisy.params, clean.params)


def test_settings_round_trip():
    config = federation(["noise:0.1", {"kind": "shift", "share": 0.2, "layers": "*.weight"}])
    assert parse_config(yaml.safe_load(config.to_yaml())) == config
    assert [threat.step.strength for threat in config.threats] == [1.0, 1.0]
    assert federation("sign_flip:0.3:4").threats == (ThreatConfig(kind="sign_flip", share=0.3, strength=4.0),)


@part
class Negated(Threat):
    """A user's own threat, which negates and scales the change."""

    factor: float = 1.0

    def after(self, client, update):
        change = update.params - client.params
        return replace(update, params=client.params - self.factor * change)


@pytest.mark.parametrize(
    "threats",
    [
        f"{__name__}:Negated:0.4:2",
        [{"kind": f"{__name__}:Negated", "share": 0.4, "factor": 2}],
        [Negated(0.4, 2.0)],
    ],
    ids=["short", "mapping", "object"],
)
def test_a_threat_of_the_users_own_is_named_or_given(threats):
    config = federation(threats)
    assert config.threats[0].step == Negated(0.4, 2.0)
    again = parse_config(yaml.safe_load(config.to_yaml()))
    assert again == config
    found = {name: simulate(federation(threats, how)) for name, how in EVERYWHERE.items()}
    known = simulate(federation("sign_flip:0.4:2"))
    assert torch.equal(found["serial"].params, found["processes"].params)
    for name in EVERYWHERE:
        torch.testing.assert_close(found[name].params, known.params, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("threats", "over", "message"),
    [
        (["nonsense:0.1"], {}, "threats.0.kind: got 'nonsense'"),
        (["noise:1.5"], {}, "threats.0.share"),
        (["noise:0.6", "random:0.6"], {}, "shares that sum to 1.2'; expected a sum of at most 1"),
        (
            ["label_noise:0.1:2"],
            {},
            r"strength: got 2; expected less than or equal to 1\. \(the probability, in",
        ),
        (
            [{"kind": "noise", "layers": "*.weight"}],
            {},
            r"layers: got '\*.weight'; expected no value with kind=noise",
        ),
        (
            ["token_noise:0.1"],
            {},
            "threats: got 'token_noise'; expected another threat with task=classification",
        ),
        (["a_little_is_enough:0.1"] * 2, {}, "once"),
        ([{"share": 0.1}], {}, "threats.0.kind: got None; expected the name of a threat"),
        (["label_flip:0.1:2"], {}, "threats.0.kind: got 'label_flip:0.1:2'; expected at most 1 values"),
        ([f"{__name__}:Negated:2"], {}, "threats.0.share: got 2"),
    ],
    ids=[
        "kind",
        "share",
        "sum",
        "strength",
        "layers",
        "task",
        "twice",
        "no kind",
        "values",
        "own",
    ],
)
def test_impossible_threats_are_refused(threats, over, message):
    with pytest.raises(InputError, match=message):
        federation(threats, **over)
