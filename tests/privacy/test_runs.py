"""Runs with differential privacy: the account, the budget, refusals, and the same bits however they run."""

import json
from math import inf

import numpy as np
import pytest
import torch
from support.federations import tiny
from support.tracking import Kill, Killed

from fedtlu_fast import InputError, simulate
from fedtlu_fast.build.privacy import account_of, with_noise
from fedtlu_fast.experiments.compare import compare
from fedtlu_fast.participation import Poisson, Pool
from fedtlu_fast.simulation.callbacks import Callback, EarlyStopping, SaveBest

PRIVATE = {"noise_multiplier": 1.0, "delta": 1e-3, "clipping_norm": 0.1}
POISSON = {"sampler": "poisson"}


@pytest.fixture
def text(tmp_path_factory):
    from support.federations import write_text

    return write_text(tmp_path_factory.mktemp("text") / "a.txt")


def private(text, over=None, **settings):
    return tiny(text, privacy={**PRIVATE, **(over or {})}, **{"participation": POISSON, **settings})


def test_every_row_and_the_summary_have_the_epsilon_so_far(text):
    config = private(text)
    found = simulate(config)
    account = account_of(config)
    assert [row["epsilon"] for row in found.metrics] == [account.epsilon(index) for index in range(1, 6)]
    assert found.summary["epsilon"] == account.epsilon(5)
    assert found.summary["epsilon"] > found.metrics[0]["epsilon"] > 0


def test_a_budget_finds_its_noise_and_is_kept(text):
    config = private(text, {"noise_multiplier": None, "epsilon": 4.0})
    found = simulate(config)
    assert 3.5 < found.summary["epsilon"] <= 4.0
    noise = found.settings["privacy"]["noise_multiplier"]
    assert noise == with_noise(config).privacy.noise_multiplier > 0
    # The same noise without a budget is the same run.
    again = simulate(private(text, {"noise_multiplier": noise}))
    assert torch.equal(again.params, found.params)


def test_rounds_beyond_the_budget_are_refused_before_the_first(text, tmp_path):
    little = private(text, {"epsilon": 4.0, "noise_multiplier": 0.5})
    enough = private(text, {"epsilon": 4.0, "noise_multiplier": 1.0})
    for config, message in (
        (little, r"privacy.noise_multiplier: got 0.5; .* even one round costs more than privacy.epsilon=4"),
        (enough, r"rounds: got 5; expected at most [1-4] with privacy.epsilon=4"),
    ):
        with pytest.raises(InputError, match=message):
            simulate(config, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_run_that_is_made_longer_goes_on_with_its_account_up_to_its_budget(text, tmp_path):
    short = private(text, {"epsilon": 8.0, "noise_multiplier": 1.0}, rounds=3)
    simulate(short, tmp_path / "out")
    simulate(short.model_copy(update={"rounds": 5}), tmp_path / "out", resume=True)
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    account = account_of(short)
    assert [row["epsilon"] for row in rows] == [account.epsilon(index) for index in range(1, 6)]
    most = account.accountant.rounds(8.0, account.release, 500, 1e-3)
    with pytest.raises(InputError, match=rf"rounds: got {most + 1}; expected at most {most}"):
        simulate(short.model_copy(update={"rounds": most + 1}), tmp_path / "out", resume=True)


def test_a_run_made_longer_keeps_the_noise_that_its_budget_was_given_for(text, tmp_path):
    short = private(text, {"epsilon": 8.0, "noise_multiplier": None}, rounds=3)
    simulate(short, tmp_path / "out")
    with pytest.raises(InputError, match=r"privacy.noise_multiplier|rounds: got 5"):
        simulate(short.model_copy(update={"rounds": 5}), tmp_path / "out", resume=True)


@pytest.mark.parametrize(
    "over", [{}, {"quantile": 0.5}, {"noise": "clients"}, {"per_block": True}], ids=lambda over: str(over)
)
def test_kill_and_resume_and_other_workers_give_the_same_bits(text, tmp_path, over):
    participation = {"sampler": "uniform"} if over.get("noise") == "clients" else POISSON
    config = private(text, over, participation=participation)
    whole = simulate(config, tmp_path / "whole")
    with pytest.raises(Killed):
        simulate(config, tmp_path / "out", callbacks=[Kill(4)])
    again = simulate(config, tmp_path / "out", resume=True)
    assert torch.equal(whole.params, again.params)
    assert [row["epsilon"] for row in whole.metrics] == [row["epsilon"] for row in again.metrics]
    processes = config.execution.model_copy(
        update={
            "executor": type(config)
            .model_validate({"execution": {"executor": "processes:2"}})
            .execution.executor
        }
    )
    assert torch.equal(simulate(config.model_copy(update={"execution": processes})).params, whole.params)


def test_the_summary_says_which_figures_are_for_the_simulation_only(text):
    found = simulate(private(text))
    only = found.summary["simulation_only"]
    assert {"train_loss", "local_loss", "trained", "refused", "failed"} <= set(only["metrics.jsonl"])
    assert {"cohort", "drawn"} <= set(only["selection.jsonl"])
    assert {"local_loss", "refused_updates", "bytes_up"} <= set(only["summary.json"])
    public = set(found.metrics[0]) - set(only["metrics.jsonl"])
    assert {"round", "test_loss", "selected", "epsilon"} <= public
    assert not any(name.startswith(("local", "train")) for name in public)
    assert only["config.yaml"] == ["seed"]
    assert "seed" in only["summary.json"], "the noise follows from it"
    assert {"timings.jsonl", "costs.json", "checkpoints", "report.html"} <= set(only)
    assert not {"stopped", "best", "test_loss"} & set(only["summary.json"])


def test_a_run_without_noise_says_of_all_figures_that_they_have_none(text):
    only = simulate(private(text, {"noise_multiplier": 0.0})).summary["simulation_only"]
    assert {"test_loss", "selected"} <= set(only["metrics.jsonl"])
    assert {"test_loss", "params_sha256"} <= set(only["summary.json"])


class Stop(Callback):
    """Ends the run by the losses of clients."""

    def on_round_end(self, run):
        if run.round == 3:
            run.keep_as_best("train_loss", run.this_row["train_loss"])
            run.stop(f"the clients' losses are {run.this_row['train_loss']}")


def test_what_callbacks_say_of_clients_is_for_the_simulation_only(text):
    found = simulate(private(text), callbacks=[Stop()])
    assert found.summary["rounds"] == 3
    assert {"stopped", "best"} <= set(found.summary["simulation_only"]["summary.json"])


@pytest.mark.parametrize("callback", [EarlyStopping("train_loss"), SaveBest("local_loss")])
def test_callbacks_that_look_at_clients_are_refused(text, callback):
    with pytest.raises(InputError, match=r"callbacks: got .*_loss.*; expected a figure of the global test"):
        simulate(private(text), callbacks=[callback])
    simulate(private(text, rounds=1), callbacks=[EarlyStopping("test_loss"), SaveBest("test_loss")])


def test_models_that_clients_train_alone_are_for_the_simulation_only(text, tmp_path):
    config = private(text, rounds=2, warmup_rounds=0)
    for arm in compare(config, ("full", "local_only", "zero_shot"), (0,), tmp_path / "out", jobs=1):
        only = set(arm.summary["simulation_only"]["summary.json"])
        assert "local_loss" in only
        assert ("test_loss" in only) == (arm.selector == "local_only")


@pytest.mark.parametrize("base", [{}, PRIVATE], ids=["none", "noise"])
def test_arms_that_share_a_warm_up_share_its_noise(text, tmp_path, base):
    config = tiny(text, privacy=base, rounds=4, warmup_rounds=3)
    other = "random@1+shared=true+privacy.noise_multiplier=5+privacy.delta=0.001"
    with pytest.raises(InputError, match=r"selectors: got 'random@1.*; expected the same noise, budget and"):
        compare(config, ("full", other), (0,), tmp_path / "out", jobs=1)
    same = config.model_copy(update={"warmup_rounds": 0})
    found = compare(same, ("full", other), (0,), tmp_path / "other", jobs=1)
    assert found[1].summary["epsilon"] < found[0].summary.get("epsilon", inf)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"participation": {"sampler": "size"}}, r"participation.sampler: got 'size'.* uniform or poisson"),
        ({"participation": {"sampler": "fixed"}}, r"participation.sampler: got 'fixed'"),
        ({"participation": {**POISSON, "duty": 0.5}}, r"participation.duty: got 0.5; expected no value with"),
        ({"aggregation": {"rule": "median"}}, r"aggregation.rule: got 'median'; expected mean with"),
        ({"aggregation": {"max_share": 0.9}}, r"aggregation.max_share: got 0.9; expected null"),
        (
            {"selection": {"metric": "agreement"}},
            r"selection.metric: got 'agreement'.* asks for client_norms",
        ),
        (
            {"client_selection": {"selector": "strategic"}},
            r"client_selection.selector: got 'strategic'; expected earlier, or one that looks at no client",
        ),
        (
            {"client_steps": ["scaffold"]},
            r"client_steps.0: got 'scaffold'; expected a step that sends nothing",
        ),
    ],
)
def test_parts_that_would_leak_are_refused_by_their_names(text, settings, message):
    with pytest.raises(InputError, match=message):
        private(text, None, **settings)


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"delta": 0.3}, r"privacy.delta: got 0.3; expected less than 1 / clients, 0.25"),
        (
            {"noise": "clients"},
            r"privacy.noise: got 'clients'; expected server with participation.sampler=poisson",
        ),
        ({"clip_lr": 0.5}, r"privacy.clip_lr: got 0.5; expected no value with quantile=null"),
        ({"quantile": 0.5, "per_block": True}, r"privacy.per_block: got True"),
        ({"quantile": 0.5, "count_noise": 0.1}, r"privacy.count_noise: got 0.1; expected more than 0.5"),
        ({"epsilon": -1.0}, r"privacy.epsilon: got -1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(text, over, message):
    with pytest.raises(InputError, match=message):
        private(text, over)


def test_settings_without_privacy_are_refused(text):
    with pytest.raises(
        InputError, match=r"privacy.clipping_norm: got 2.0; expected no value with neither epsilon"
    ):
        tiny(text, privacy={"clipping_norm": 2.0})


def test_pld_needs_poisson_sampling(text):
    config = private(text, {"accountant": "pld"}, participation={"sampler": "uniform"})
    with pytest.raises(InputError, match=r"privacy.accountant: got 'pld'; expected rdp"):
        simulate(config)


def test_a_missing_package_stops_the_run_and_not_the_reading_of_its_settings(text, monkeypatch):
    """So that a run of elsewhere can be exported and reported."""
    monkeypatch.setattr("fedtlu_fast.extras.find_spec", lambda package: None)
    config = private(text)
    with pytest.raises(InputError, match=r"privacy.accountant: got 'rdp'; .*pip install 'fedtlu-fast\[priv"):
        simulate(config)


AGGREGATE = {"server_sees": "aggregate"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aggregation": {"rule": "median"}}, r"aggregation.rule: got 'median'; expected mean with privacy"),
        ({"aggregation": {"rule": "norm_clip", "clip": 1.0}}, r"aggregation.rule: got 'norm_clip'"),
        ({"participation": {"sampler": "loss"}}, r"participation.sampler: got 'loss'.* losses with"),
        ({"participation": {"sampler": "size"}}, r"participation.sampler: got 'size'.* numbers of samples"),
        ({"selection": {"metric": "pairs"}}, r"selection.metric: got 'pairs'.* asks for client_values"),
        ({"client_selection": {"selector": "strategic"}}, r"client_selection.decides: got 'server'"),
        ({"threats": ["a_little_is_enough:0.5"]}, r"threats.0: got 'a_little_is_enough'"),
    ],
)
def test_a_server_that_sees_the_aggregate_only_refuses_parts_that_need_more(text, settings, message):
    with pytest.raises(InputError, match=message):
        tiny(text, privacy=AGGREGATE, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"selection": {"metric": "l2_per_parameter"}},
        {"client_steps": ["scaffold"], "training": {"optimizer": "sgd"}},
        {"client_selection": {"selector": "fedpart", "budget": 1}},
        {"client_selection": {"selector": "rgn", "decides": "client", "budget": 1}},
    ],
)
def test_parts_that_need_sums_only_run_as_ever(text, settings):
    seen = simulate(tiny(text, privacy=AGGREGATE, **settings))
    assert torch.equal(seen.params, simulate(tiny(text, **settings)).params)
    assert "epsilon" not in seen.summary


@pytest.mark.parametrize("privacy", [AGGREGATE, PRIVATE], ids=["aggregate", "noise"])
def test_recorded_scores_look_at_no_single_client_either(text, privacy):
    evaluation = {"benefit": True, "held_out": 4}
    row = simulate(tiny(text, privacy=privacy, evaluation=evaluation)).selection[0]
    seen = simulate(tiny(text, evaluation=evaluation)).selection[0]
    assert "'agreement" in str(seen["benefit"])
    assert not any(f"'{name}" in str(row["benefit"]) for name in ("agreement", "signal", "pairs"))


def test_a_threat_comes_after_the_clipping_and_honest_clients_keep_to_it(text):
    clean = simulate(private(text, {"noise_multiplier": 0.0, "clipping_norm": 1e-3}))
    hostile = simulate(
        private(text, {"noise_multiplier": 0.0, "clipping_norm": 1e-3}, threats=["scaling:0.5:1000"])
    )
    moved = [float(torch.linalg.vector_norm(run.params - clean.params)) for run in (clean, hostile)]
    assert moved[0] == 0
    assert moved[1] > 0.05  # 1,000 times the clipping norm, divided by the cohort


def test_poisson_draws_each_client_with_the_same_probability_and_independently():
    drawn = np.zeros((4000, 20))
    for index in range(len(drawn)):
        found = Poisson().draw(Pool(5, index, 20), 4)
        assert len(set(found)) == len(found)
        drawn[index, found] = 1
    assert np.abs(drawn.mean(axis=0) - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / len(drawn))
    together = np.corrcoef(drawn.T) - np.eye(20)
    assert np.abs(together).max() < 5 / np.sqrt(len(drawn))
    assert drawn.sum(axis=1).var() == pytest.approx(20 * 0.2 * 0.8, rel=0.15)


def test_poisson_cohorts_have_any_size_and_leave_nobody_out(text):
    found = simulate(tiny(text, participation=POISSON, rounds=30, clients=4, cohort=2))
    sizes = {row["trained"] for row in found.metrics}
    assert {0, 1, 2, 3} <= sizes
    assert not any(row["dropped"] for row in found.metrics)
    with pytest.raises(InputError, match=r"participation.over_selection: got 1.5; expected 1 with the samp"):
        tiny(text, participation={**POISSON, "over_selection": 1.5})
    # Also where all clients are drawn: the others would make room, and no draw would be independent.
    with pytest.raises(InputError, match=r"participation.over_selection: got 2.0; expected 1 with the samp"):
        tiny(text, participation={**POISSON, "over_selection": 2.0}, clients=4, cohort=2)
    assert inf > found.summary["test_loss"]


def test_poisson_cohorts_larger_than_their_mean_train_together(text):
    together = {"executor": "vectorized", "clients_per_batch": 3}
    given = {"participation": POISSON, "rounds": 5, "clients": 4, "cohort": 2}
    found = simulate(tiny(text, execution=together, **given))
    assert max(row["trained"] for row in found.metrics) > 2
    one_by_one = simulate(tiny(text, **given))
    assert torch.allclose(found.params, one_by_one.params, atol=1e-5)
