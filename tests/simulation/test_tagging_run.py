"""A federation that tags: what its files hold, that it learns."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.federations import left, rows, tiny, tree
from support.treebanks import write_treebank

from fedtlu_fast import simulate
from fedtlu_fast.build.run import open_run
from fedtlu_fast.config import RunConfig
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.data.population import ArrayPopulation, Shares
from fedtlu_fast.simulation.evaluation import local_test


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_treebank(tmp_path_factory.mktemp("data") / "bank")


def settings(bank: Path, **over: Any) -> RunConfig:
    base = tree(bank, task="tagging", data={"source": f"udpos:{bank}"}, rounds=6, **over)
    return parse_config(base)


@pytest.mark.parametrize("architecture", ["transformer", "gpt2"])
def test_it_learns_and_tells_accuracy_and_f1(bank: Path, tmp_path: Path, architecture: str) -> None:
    training = {"optimizer": "adamw", "lr": 0.01, "local_steps": 8}
    config = settings(bank, model={"architecture": architecture}, training=training)
    result = simulate(config, tmp_path / "out")
    summary, metrics = result.summary, result.metrics
    assert metrics == rows(tmp_path / "out" / "metrics.jsonl")
    assert summary["test_accuracy"] > 0.9 > metrics[0]["test_accuracy"]
    assert summary["test_accuracy"] == metrics[-1]["test_accuracy"]
    assert summary["local_accuracy"] == metrics[-1]["local_accuracy"]
    assert [row["round"] for row in metrics if row["local_accuracy"] is not None] == [3, 6]
    assert {"DET", "ADJ", "NOUN", "VERB", "PUNCT"} <= summary["test_f1"].keys()
    assert summary["test_macro_f1"] == pytest.approx(np.mean(list(summary["test_f1"].values())))
    assert summary["test_perplexity"] == pytest.approx(np.exp(summary["test_loss"]))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Global test, label by label" in page
    assert "test_accuracy" in page


def test_who_trains_and_kills_do_not_change_the_bits(bank: Path, tmp_path: Path) -> None:
    config = settings(bank)
    simulate(config, tmp_path / "whole")
    with closing(open_run(config, tmp_path / "cut")) as run:
        run.advance(3)
    simulate(config, tmp_path / "cut", resume=True)
    assert left(tmp_path / "cut") == left(tmp_path / "whole")
    together = simulate(settings(bank, execution={"executor": "vectorized", "clients_per_batch": 2}))
    alone = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert together.summary["test_loss"] == pytest.approx(alone["test_loss"], rel=1e-3)


def test_clients_without_a_test_are_left_out_of_the_local_test(bank: Path) -> None:
    with closing(open_run(settings(bank))) as run:
        population = run.server.population
        assert isinstance(population, ArrayPopulation)
        parts = [population.own_tests[client] for client in range(4)]
        each = []
        for client in range(4):
            only = [part if index == client else part[:0] for index, part in enumerate(parts)]
            server = replace(run.server, population=replace(population, own_tests=Shares.of(only)))
            each.append(local_test(server, run.state))
        some = replace(population, own_tests=Shares.of([parts[0][:0], *parts[1:]]))
        found = local_test(replace(run.server, population=some), run.state)
        assert found.loss == pytest.approx(np.mean([one.loss for one in each[1:]]))
        assert found.means["accuracy"] == pytest.approx(np.mean([one.means["accuracy"] for one in each[1:]]))
        none = replace(population, own_tests=Shares.of([part[:0] for part in parts]))
        found = local_test(replace(run.server, population=none), run.state)
        assert (found.loss, found.means, found.left_out) == (None, {}, {})


def test_other_tasks_have_accuracy_where_it_makes_sense(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a b c d e f g h " * 300, encoding="utf-8")
    summary = simulate(tiny(tmp_path / "a.txt"), tmp_path / "text").summary
    assert (summary["test_accuracy"], summary["local_accuracy"], summary["test_f1"]) == (None, None, None)
    assert "test_accuracy" not in (tmp_path / "text" / "report.html").read_text()
    synthetic = tree(
        tmp_path, task="classification", data={"source": "synthetic"}, model={"hidden": [8, 8, 8]}
    )
    summary = simulate(parse_config(synthetic)).summary
    assert 0 < summary["test_accuracy"] < 1
    assert 0 < summary["local_accuracy"] < 1
    assert summary["test_f1"] is None
