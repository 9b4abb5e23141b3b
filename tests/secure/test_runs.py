"""Runs with secure aggregation: results of plain runs, dropouts, refusals, the same bits however they run."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.federations import features, tiny, write_text
from support.tiny_federation import data
from support.tracking import Kill, Killed
from torch import nn
from torch.nn import functional

import fedtlu_fast as ft
from fedtlu_fast import InputError, simulate
from fedtlu_fast.config.privacy import PrivacyConfig
from fedtlu_fast.secure.fixed_point import FixedPoint
from fedtlu_fast.secure.messages import bytes_up
from fedtlu_fast.secure.secure_sum import SecureSum
from fedtlu_fast.secure.server import SecureServer
from fedtlu_fast.simulation.callbacks import Callback
from fedtlu_fast.testing import check_client_step

pytest.importorskip("cryptography")
MASKED = {"secure_aggregation": True}
EARLIER = {"client_selection": {"selector": "earlier", "budget": 1}, "selection": {"selector": "full"}}


@pytest.fixture
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "a.txt")


def several(**over):
    return features({"selector": "full"}, None, **over)


def gap(one, other):
    return float((one.params - other.params).abs().max())


@pytest.mark.parametrize(
    "masks",
    [{}, {"largest_change": 1.0, "largest_weight": 15}, {"bits": 32, "largest_change": 1.0}],
    ids=["default", "64 bits", "32 bits"],
)
def test_a_round_gives_the_plain_rounds_model_to_the_precision_of_the_numbers(masks):
    plain = simulate(several(rounds=1))
    found = simulate(several(rounds=1, privacy={**MASKED, "masks": masks}))
    clients, fewest = 7, 4
    form = FixedPoint(clients, **{"largest_change": 16.0, "largest_weight": 2**20, "bits": 64, **masks})
    # Each of the cohort's numbers is off by half a step. The rest is float32: a plain sum of 7 changes, and
    # the parameters themselves.
    fixed = form.step(fewest) / 2
    size = float(plain.params.abs().max())
    assert gap(plain, found) <= fixed + 10 * 2**-24 * size
    assert gap(plain, simulate(several(rounds=1).model_copy(update={"seed": 1}))) > 1e-3
    if masks.get("bits") == 32:
        assert gap(plain, found) > fixed / 100 > 100 * 2**-24 * size  # the precision is what shows


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"selection": {"metric": "l2_per_parameter"}},
        {"selection": {"selector": "random", "metric": None}},
        {"client_selection": {"selector": "fedpart", "budget": 1}},
        EARLIER,
        {"training": {"lr": 0.01, "optimizer": "adamw"}, "aggregation": {"server_optimizer": "momentum"}},
    ],
    ids=lambda settings: str(list(settings.values())[:1]),
)
def test_selectors_that_need_the_aggregate_only_choose_as_in_a_plain_run(text, settings):
    settings = {**settings, "selection": {k: v for k, v in settings.get("selection", {}).items() if v}}
    found = simulate(tiny(text, privacy=MASKED, **settings))
    plain = simulate(tiny(text, **settings))
    assert [row["selected"] for row in found.metrics] == [row["selected"] for row in plain.metrics]
    assert gap(found, plain) < 1e-5
    assert found.metrics[-1]["selected"]


def test_kill_and_resume_and_other_workers_give_the_same_bits(text, tmp_path):
    config = tiny(text, privacy=MASKED, cohort=3, participation={"dropout": 0.1})
    whole = simulate(config, tmp_path / "whole")
    with pytest.raises(Killed):
        simulate(config, tmp_path / "out", callbacks=[Kill(4)])
    assert torch.equal(simulate(config, tmp_path / "out", resume=True).params, whole.params)
    for workers in (1, 2):
        other = tiny(
            text,
            privacy=MASKED,
            cohort=3,
            participation={"dropout": 0.1},
            execution={"executor": f"processes:{workers}"},
        )
        assert torch.equal(simulate(other).params, whole.params)


def test_the_server_gets_masked_vectors_only(text, monkeypatch):
    """The shares of octets in what the server adds up are those of uniform numbers."""
    seen = []
    add = SecureServer.add_

    def spying(self, masked):
        seen.append(masked.numbers.copy())
        add(self, masked)

    monkeypatch.setattr(SecureServer, "add_", spying)
    simulate(tiny(text, privacy=MASKED))
    assert len(seen) == 10
    for numbers in seen:
        octets = np.bincount(numbers.view(np.uint8), minlength=256)
        expected = numbers.nbytes / 256
        assert abs(((octets - expected) ** 2 / expected).sum() - 255) < 6 * 22.6


def test_clients_that_drop_out_or_send_nan_are_the_protocols_dropouts(text, monkeypatch):
    asked = []
    ask = SecureServer.ask

    def asking(self):
        found = ask(self)
        asked.append((len(found.sent), len(found.silent)))
        return found

    monkeypatch.setattr(SecureServer, "ask", asking)
    settings = {
        "clients": 8,
        "cohort": 6,
        "participation": {"dropout": 0.15, "over_selection": 1.2},
        "threats": ["scaling:0.13:1e30"],
        "rounds": 8,
    }
    given = {"threshold": 0.5}
    found = simulate(tiny(text, privacy={**MASKED, "masks": given}, **settings))
    plain = simulate(tiny(text, **settings))
    rows = zip(found.metrics, asked, strict=True)
    for row, (sent, silent) in rows:
        assert silent == len(row["dropped"]) + len(row["refused"])
        assert sent == row["trained"] - len(row["refused"])
    assert any(row["refused"] for row in found.metrics)
    assert any("no answer" in row["dropped"].values() for row in found.metrics)
    assert any("too late" in row["dropped"].values() for row in found.metrics)
    assert gap(found, plain) < 1e-5


def test_a_round_with_too_few_clients_changes_nothing_and_says_so(text, caplog):
    settings = {"clients": 4, "cohort": 4, "participation": {"dropout": 0.3}, "rounds": 8}

    class Models(Callback):
        kept = ()

        def on_round_end(self, run):
            self.kept = (*self.kept, run.params.clone())

    models = Models()
    with caplog.at_level(logging.WARNING, "fedtlu_fast"):
        found = simulate(tiny(text, privacy=MASKED, **settings), callbacks=[models])
    stopped = [row["round"] for row in found.metrics if len(row["dropped"]) > 1]
    assert 0 < len(stopped) < 8
    for index in stopped:
        assert f"round {index}: secure aggregation: " in caplog.text
        assert found.metrics[index - 1]["selected"] == []
        if index > 1:
            assert torch.equal(models.kept[index - 1], models.kept[index - 2])
    assert caplog.text.count("3 are needed; the server gets no sum") == len(stopped)
    others = set(range(2, 9)) - set(stopped)
    assert all(not torch.equal(models.kept[index - 1], models.kept[index - 2]) for index in others)


def test_bytes_are_those_of_masked_vectors_and_of_the_protocol(text):
    found = simulate(tiny(text, privacy=MASKED))
    parameters = found.summary["parameters"]
    assert found.metrics[0]["bytes_up"] == 2 * (8 * (parameters + 1) + bytes_up(2))
    half = simulate(tiny(text, privacy={**MASKED, "masks": {"bits": 32, "largest_weight": 1000}}))
    assert half.metrics[0]["bytes_up"] == 2 * (4 * (parameters + 1) + bytes_up(2))


def test_numbers_beyond_the_range_are_cut_and_the_log_says_so(text, caplog):
    with caplog.at_level(logging.WARNING, "fedtlu_fast"):
        simulate(tiny(text, privacy={**MASKED, "masks": {"largest_change": 1e-6}}, rounds=1))
    assert "cut numbers to privacy.masks.largest_change=1e-06" in caplog.text


def test_a_weight_beyond_the_range_stops_the_run(text):
    config = tiny(text, privacy={**MASKED, "masks": {"largest_weight": 1}})
    with pytest.raises(InputError, match=r"privacy.masks.largest_weight: got 1; expected at least the"):
        simulate(config)


@pytest.mark.parametrize(
    ("over", "settings"),
    [({}, {}), ({"noise": "clients"}, {}), ({}, EARLIER)],
    ids=lambda own: str(list(own)),
)
def test_noise_and_masks_work_together(text, over, settings):
    pytest.importorskip("dp_accounting")
    private = {"noise_multiplier": 1.0, "delta": 1e-3, "clipping_norm": 0.1, **over}
    found = simulate(tiny(text, **settings, privacy={**private, **MASKED}))
    plain = simulate(tiny(text, **settings, privacy=private))
    assert gap(found, plain) < 1e-5
    assert found.summary["epsilon"] == plain.summary["epsilon"]
    assert gap(plain, simulate(tiny(text, **settings, privacy={**private, "noise_multiplier": 0.0}))) > 1e-2


def test_a_change_of_the_clipping_norm_is_not_longer_once_it_is_masked():
    # Its numbers are just above half a step: to the nearest step, they would nearly double.
    config = PrivacyConfig(
        noise_multiplier=1.0, secure_aggregation=True, masks={"bits": 32, "largest_change": 1.0}
    )
    form = config.masked(4, 4).encoding(4)
    change = np.full(1000, 0.51 * form.step(1.0))
    found, _ = form.decode(form.encode(change, 1.0))
    assert np.linalg.norm(found) <= np.linalg.norm(change)


@ft.part
class Spoil(ft.ClientStep):
    """Makes the changes of the first clients NaN."""

    first: int = 1

    def after(self, client, update):
        return replace(update, params=update.params * torch.nan) if client.number < self.first else update


FLOAT = {"noise_multiplier": 2.0, "delta": 1e-3, "clipping_norm": 0.1, **MASKED}
DISCRETE = {**FLOAT, "discrete": True}


@pytest.mark.parametrize("noise", ["server", "clients"])
@pytest.mark.parametrize(
    "settings", [{}, EARLIER, {"participation": {"dropout": 0.2}}], ids=["all", "one block", "dropout"]
)
def test_discrete_noise_is_whole_and_as_large_as_the_account_says(text, noise, settings):
    pytest.importorskip("dp_accounting")
    given = {"clients": 4, "cohort": 4, "rounds": 1, **settings}
    config = tiny(text, **given, privacy={**DISCRETE, "noise": noise})
    found = simulate(config)
    start = simulate(config.model_copy(update={"server_lr": 1e-12})).params
    steps = (found.params - start).double().numpy() * 4 / config.privacy.mean(4).grid.step
    assert np.abs(steps - np.rint(steps)).max() < 0.1, "parameters have rounded the steps a little"
    quiet = simulate(tiny(text, **given, privacy={**FLOAT, "noise_multiplier": 1e-4}))
    noisy = (found.params - quiet.params).double().numpy()[steps != 0]
    assert noisy.std() == pytest.approx(2.0 * 0.1 / 4, rel=5 / np.sqrt(2 * len(noisy)))
    as_floats = simulate(tiny(text, **given, privacy={**FLOAT, "noise": noise}))
    assert found.summary["epsilon"] == as_floats.summary["epsilon"]


def test_discrete_noise_has_the_same_bits_for_all_workers_and_after_a_kill(text, tmp_path):
    pytest.importorskip("dp_accounting")
    given = {"cohort": 3, "participation": {"dropout": 0.1}, "privacy": {**DISCRETE, "noise": "clients"}}
    whole = simulate(tiny(text, **given))
    with pytest.raises(Killed):
        simulate(tiny(text, **given), tmp_path / "out", callbacks=[Kill(4)])
    assert torch.equal(simulate(tiny(text, **given), tmp_path / "out", resume=True).params, whole.params)
    other = tiny(text, **given, execution={"executor": "processes:2"})
    assert torch.equal(simulate(other).params, whole.params)


@pytest.mark.parametrize("noise", ["server", "clients"])
@pytest.mark.parametrize("spoilt", range(4))
def test_what_discrete_noise_publishes_does_not_tell_how_many_clients_counted(text, noise, spoilt):
    """A quotient by their number would be rounded in another way for each number."""
    pytest.importorskip("dp_accounting")
    spoil = {"kind": f"{__name__}:Spoil", "first": spoilt}
    given = {"client_steps": [spoil], "clients": 3, "cohort": 3, "rounds": 1}
    config = tiny(text, **given, privacy={**DISCRETE, "noise": noise})
    start = simulate(config.model_copy(update={"server_lr": 1e-30})).params
    found = simulate(config).params
    zeros = (start.abs() < 1e-20) & (found.abs() > 1e-20)
    step = config.privacy.mean(3).grid.step
    whole = (found[zeros].double() * 3 / step).round()
    assert len(whole) > 50
    assert torch.equal((whole * step).float() / 3, found[zeros])


@pytest.mark.parametrize("noise", ["server", "clients"])
def test_a_round_without_a_sum_has_discrete_noise_too(text, noise):
    pytest.importorskip("dp_accounting")
    spoil = {"kind": f"{__name__}:Spoil", "first": 4}
    given = {"client_steps": [spoil], "clients": 4, "cohort": 4, "rounds": 1}
    config = tiny(text, **given, privacy={**DISCRETE, "noise": noise})
    start = simulate(config.model_copy(update={"server_lr": 1e-12})).params
    moved = simulate(config).params - start
    assert float(moved[moved != 0].std()) == pytest.approx(2.0 * 0.1 / 4, rel=0.05)


@pytest.mark.parametrize(
    ("privacy", "message"),
    [
        ({"secure_aggregation": False}, r"privacy.discrete: got True; expected false: whole"),
        ({"noise_multiplier": 0.0}, r"privacy.discrete: got True; expected false without noise"),
        ({"clipping_norm": 1e-6}, r"privacy.discrete: got True; .* cannot hold steps of 9.3e-10"),
        (
            {"noise_multiplier": 0.1, "masks": {"bits": 32, "largest_change": 2.0**20}},
            r"privacy.masks.bits: got 32; expected 64, or a smaller largest_change",
        ),
    ],
)
def test_discrete_noise_that_does_not_fit_is_refused(text, privacy, message):
    pytest.importorskip("dp_accounting")
    with pytest.raises(InputError, match=message):
        simulate(tiny(text, privacy={**DISCRETE, **privacy}))


def test_discrete_noise_of_a_budget_takes_its_steps_from_the_noise_that_is_found(text):
    pytest.importorskip("dp_accounting")
    given = {**DISCRETE, "noise_multiplier": None, "epsilon": 8.0, "masks": {"bits": 32}}
    assert simulate(tiny(text, privacy=given)).summary["epsilon"] <= 8


def test_a_cohort_that_can_never_be_enough_is_refused(text):
    given = {"clients": 10, "cohort": 4, "participation": {"over_selection": 1.5}}
    message = r"over_selection: got 1.5; expected less .*: of 6 clients that are drawn 5 have to send"
    with pytest.raises(InputError, match=message):
        tiny(text, privacy=MASKED, **given)
    tiny(text, privacy=MASKED, **{**given, "participation": {"over_selection": 1.2}})


def test_the_sum_has_room_for_discrete_noise():
    given = {"noise_multiplier": 1.0, "secure_aggregation": True, "discrete": True}
    config = PrivacyConfig(**given, masks={"bits": 32, "largest_change": 8.0})
    most = 2**16  # of 2^15 steps each, whose sum alone would just fit
    config.check_range(most - 2, most - 2)
    with pytest.raises(InputError, match=r"privacy.masks.bits: got 32; expected 64 with privacy.discrete"):
        config.check_range(most - 1, most - 1)


@pytest.mark.parametrize("noise", ["server", "clients"])
@pytest.mark.parametrize("first", [1, 4])
def test_a_client_without_a_sound_change_does_not_decide_whether_the_others_count(text, caplog, first, noise):
    pytest.importorskip("dp_accounting")
    spoil = {"kind": f"{__name__}:Spoil", "first": first}
    given = {"client_steps": [spoil], "clients": 4, "cohort": 3, "rounds": 4}
    private = {"noise_multiplier": 0.1, "delta": 1e-3, "clipping_norm": 1.0, "noise": noise}
    found = simulate(tiny(text, **given, privacy={**private, **MASKED}))
    assert any(row["refused"] for row in found.metrics)
    assert gap(found, simulate(tiny(text, **given, privacy=private))) < 1e-5
    assert "gets no sum" not in caplog.text


@pytest.mark.parametrize(
    ("over", "settings", "message"),
    [
        ({"clipping_norm": 50.0}, {}, r"privacy.masks.largest_change: got 16.0; expected .* or more with"),
        ({"masks": {"bits": 32, "largest_weight": 2**20}}, {}, r"privacy.masks.bits: got 32; expected 64"),
        (
            {"noise": "server"},
            {"participation": {"sampler": "poisson"}},
            r"participation.sampler: got 'poisson'; expected uniform with privacy.secure_aggregation",
        ),
    ],
)
def test_masks_that_would_take_from_the_noise_are_refused(text, over, settings, message):
    pytest.importorskip("dp_accounting")
    private = {"noise_multiplier": 1.0, "delta": 1e-3, "clipping_norm": 0.1, "noise": "clients", **over}
    with pytest.raises(InputError, match=message):
        simulate(tiny(text, **settings, privacy={**private, **MASKED}))


def test_buffers_are_masked_too():
    def found(**privacy):
        torch.manual_seed(0)
        layers = [nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)]
        task = ft.SupervisedTask(nn.Sequential(*layers), functional.cross_entropy)
        settings = {"privacy": privacy} if privacy else {}
        run = ft.Federation(task, data, cohort=4, keep=1, executor="serial", settings=settings)
        return run.run(rounds=2)

    plain, masked = found(), found(**MASKED)
    assert gap(plain, masked) < 1e-6
    pairs = [(own, dict(masked.model.named_buffers())[name]) for name, own in plain.model.named_buffers()]
    assert len(pairs) == 6
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in pairs)
    assert float(plain.model[1].running_mean.abs().max()) > 1e-3


def test_the_step_keeps_the_promises_of_steps():
    check_client_step(SecureSum(4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"aggregation": {"rule": "median"}},
            r"aggregation.rule: got 'median'; .* privacy.secure_aggregation=t",
        ),
        ({"selection": {"metric": "agreement"}}, r"selection.metric: .* with privacy.secure_aggregation"),
        ({"participation": {"sampler": "loss"}}, r"participation.sampler: got 'loss'"),
        ({"threats": ["a_little_is_enough:0.5"]}, r"threats.0: got 'a_little_is_enough'"),
        ({"client_steps": ["quantise"]}, r"client_steps.0: got 'quantise'; expected none that compresses"),
        (
            {"client_steps": ["scaffold"], "training": {"optimizer": "sgd"}},
            r"client_steps.0: got 'scaffold'; expected a step that sends nothing beside",
        ),
        (
            {"client_selection": {"selector": "rgn", "decides": "client", "budget": 1}},
            r"client_selection.selector: got 'rgn'; expected none, or one with the same blocks",
        ),
        ({"cohort": 1}, r"cohort: got 1; expected .*2"),
    ],
)
def test_parts_that_send_or_need_more_are_refused_before_the_run(text, settings, message):
    with pytest.raises(InputError, match=message):
        tiny(text, privacy=MASKED, **settings)


@pytest.mark.parametrize(
    ("privacy", "message"),
    [
        ({"masks": {"bits": 32}}, r"privacy.masks.bits: got 32; expected no value with secure_agg"),
        ({**MASKED, "masks": {"bits": 16}}, r"privacy.masks.bits"),
        ({**MASKED, "masks": {"threshold": 0.3}}, r"privacy.masks.threshold: got 0.3"),
        (
            {**MASKED, "masks": {"bits": 32, "largest_weight": 2**22}},
            r"privacy.masks.bits: got 32; .* of 1 c",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(text, privacy, message):
    with pytest.raises(InputError, match=message):
        tiny(text, privacy=privacy)


def test_a_missing_package_stops_the_run_and_not_the_reading_of_its_settings(text, monkeypatch):
    monkeypatch.setattr("fedtlu_fast.extras.find_spec", lambda package: None)
    settings = tiny(text, privacy=MASKED)
    message = r"privacy.secure_aggregation: got True; .*pip install 'fedtlu-fast\[priv"
    with pytest.raises(InputError, match=message):
        simulate(settings)
