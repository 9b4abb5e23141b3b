"""The paper's grid: what is in it, that it can be stopped and gone on with, and what its table says."""

import csv
import json

import numpy as np
import pytest
from support.federations import write_text

from fedtlu_fast import InputError
from fedtlu_fast.experiments.experiment import (
    AGGREGATORS,
    EXPERIMENTS,
    THREATS,
    conditions,
    experiment_settings,
    run_experiment,
)
from fedtlu_fast.report.aggregate.experiment import experiment_rows, paired_interval
from fedtlu_fast.report.pages.experiment import write_experiment_report
from fedtlu_fast.runs.results import ArmResult, ConditionResult

TINY = [
    "rounds=2",
    "clients=4",
    "cohort=2",
    "layers=2",
    "width=8",
    "heads=2",
    "keep=1",
    "local_steps=1",
    "data.vocabulary=40",
    "data.window=8",
    "pretraining.epochs=1",
    "trained_clients=1",
]


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDTLU_CACHE", str(tmp_path / "cache"))
    text = write_text(tmp_path / "text.txt")
    return experiment_settings("ptb-transformer", "small", [f"data.source=text:{text}", *TINY])


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("scale", ["small", "paper"])
def test_every_experiment_is_there_at_both_scales(name, scale):
    config = experiment_settings(name, scale)
    task, _, model = name.partition("-")
    assert config.task == ("tagging" if task == "udpos" else "language_modelling")
    assert config.clients == 100
    grid = conditions(config)
    assert [one.name for one in grid] == [f"{a}-{t}" for a in AGGREGATORS for t in THREATS]
    if scale == "paper":
        assert config.rounds == 150
        assert (config.model.pretrained == "gpt2") == (model == "gpt2")
    else:
        assert config.model.name_of("architecture") == model


def test_conditions_differ_in_what_they_are_named_after(settings):
    grid = {one.name: one.config for one in conditions(settings)}
    assert grid["fedavg-clean"].training.proximal_mu == 0
    assert grid["fedprox-clean"].training.proximal_mu > 0
    assert grid["fedavg-clean"].threats == ()
    assert [threat.name_of("kind") for threat in grid["fedavg-malicious"].threats] == ["sign_flip"]
    same = {name: config.model_copy(update={"threats": ()}) for name, config in grid.items()}
    assert same["fedprox-noisy"] == same["fedprox-clean"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"aggregators": ["fedavg", "fedsgd"]}, "aggregators: got 'fedavg,fedsgd'"),
        ({"threats": []}, "threats: got"),
        ({"threats": ["clean", "clean"]}, "each once"),
    ],
    ids=["unknown", "none", "twice"],
)
def test_cells_that_are_none_are_refused(settings, given, message):
    with pytest.raises(InputError, match=message):
        conditions(settings, **given)


def test_an_unknown_experiment_is_refused():
    with pytest.raises(InputError, match="name: got 'imagenet'; expected one of udpos-transformer"):
        experiment_settings("imagenet", "small")


@pytest.mark.draws
@pytest.mark.usefixtures("in_process")
def test_a_whole_one_and_going_on_with_it(settings, tmp_path):
    grid = conditions(settings, ["fedavg"], ["clean", "malicious"])
    chosen = ["fedtlu", "random"], [0, 1], tmp_path / "out"
    found = run_experiment(grid, *chosen)
    assert [len(result.arms) for result in found] == [4, 4]
    starts = list((tmp_path / "cache").iterdir())
    assert len(starts) == 1, "one start for all arms and seeds"

    with pytest.raises(InputError, match="a new or empty directory"):
        run_experiment(grid, *chosen)
    # One arm is lost, another was never finished.
    (tmp_path / "out" / "fedavg-malicious" / "random-seed1" / "summary.json").unlink()
    kept = (tmp_path / "out" / "fedavg-clean" / "fedtlu-seed0" / "summary.json").stat().st_mtime_ns
    again = run_experiment(grid, *chosen, resume=True)
    assert (tmp_path / "out" / "fedavg-clean" / "fedtlu-seed0" / "summary.json").stat().st_mtime_ns == kept
    for one, other in zip(found, again, strict=True):
        for before, after in zip(one.arms, other.arms, strict=True):
            assert before.summary["params_sha256"] == after.summary["params_sha256"]
    with pytest.raises(InputError, match="began with"):
        run_experiment(grid, ["fedtlu", "last"], *chosen[1:], resume=True)

    rows = write_experiment_report("ptb-transformer", again, tmp_path / "out")
    table = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
    assert len(table) == len(rows) == 2 * 2 * 3
    assert set(table[0]) == {
        *("task", "model", "aggregator", "threat", "selector", "metric", "split", "mean", "std", "seeds"),
        *("gain_over_random_pct", "ci_low", "ci_high"),
    }
    seconds = list(csv.DictReader((tmp_path / "out" / "seconds.csv").open()))
    assert [(row["threat"], row["selector"], row["rounds"]) for row in seconds] == [
        (threat, selector, "4") for threat in ("clean", "malicious") for selector in ("fedtlu", "random")
    ]
    assert all(float(row["train"]) > float(row["score"]) > 0 for row in seconds)
    assert "Scoring took" in (tmp_path / "out" / "table.md").read_text()
    assert "Milliseconds of a round, by stage" in (tmp_path / "out" / "report.html").read_text()
    assert (tmp_path / "out" / "plots" / "gains.png").read_bytes().startswith(b"\x89PNG")
    assert "fedavg | malicious | fedtlu | perplexity | global" in (tmp_path / "out" / "table.md").read_text()
    assert (tmp_path / "out" / "fedavg-clean" / "plots" / "comparison.png").exists()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Experiment: ptb-transformer" in page


def test_going_on_with_what_is_no_experiment_is_refused(settings, tmp_path):
    with pytest.raises(InputError, match=r"experiment\.yaml"):
        run_experiment(conditions(settings), ["fedtlu"], [0], tmp_path, resume=True)


def arm(selector, seed, **summary):
    return ArmResult(selector, seed, {"test_perplexity": None, **summary}, [], [])


def test_gains_are_paired_by_seed(settings):
    arms = [
        arm("fedtlu", 0, test_perplexity=90.0, test_accuracy=0.6),
        arm("fedtlu", 1, test_perplexity=40.0, test_accuracy=0.5),
        arm("random", 0, test_perplexity=100.0, test_accuracy=0.5),
        arm("random", 1, test_perplexity=50.0, test_accuracy=0.5),
    ]
    rows = experiment_rows("x-gpt2", [ConditionResult("fedavg", "clean", arms)])
    found = {(row["selector"], row["metric"]): row for row in rows}
    ours = found["fedtlu", "perplexity"]
    assert ours["gain_over_random_pct"] == pytest.approx(15.0)
    # t(0.975, 1 degree) = 12.706; the gains are 10 and 20.
    assert ours["ci_low"] == pytest.approx(15 - 12.706 * np.sqrt(50) / np.sqrt(2), rel=1e-4)
    assert ours["ci_high"] == pytest.approx(15 + 12.706 * 5, rel=1e-4)
    assert (ours["mean"], ours["seeds"], ours["model"]) == (65.0, 2, "gpt2")
    assert found["fedtlu", "accuracy"]["gain_over_random_pct"] == pytest.approx(10.0), "more is better"
    assert found["random", "perplexity"]["gain_over_random_pct"] is None
    assert ("fedtlu", "macro_f1") not in found


def test_an_arm_that_diverged_has_no_gain(settings):
    arms = [arm("fedtlu", 0), arm("fedtlu", 1, test_perplexity=9.0), arm("random", 1, test_perplexity=10.0)]
    rows = experiment_rows("x-gpt2", [ConditionResult("fedavg", "clean", arms)])
    row = rows[0]
    assert (row["seeds"], row["gain_over_random_pct"], row["ci_low"]) == (1, pytest.approx(10.0), None)
    assert json.dumps(rows)


def test_the_interval_covers_what_it_should():
    """Of 400 samples of 5 normal numbers, some 380 intervals hold the true mean."""
    draws = np.random.default_rng(0).normal(3, 2, size=(400, 5))
    held = sum(low <= 3 <= high for low, high in (paired_interval(list(own)) for own in draws))
    assert 365 <= held <= 395
