"""Robust rules against NumPy on the whole stack, in memory and spilled to a file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from federations import tiny, write_text

from fedtlu_fast import InputError, simulate
from fedtlu_fast.aggregation import check_room, make_rule, robust
from fedtlu_fast.config import AggregationConfig


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("data") / "text.txt")


def made(config, base, clients):
    rule = make_rule(config, base, len(clients) + 2, "auto")
    for client in clients:
        vector = client.clone()
        rule.add_(vector, 5)
        vector.fill_(7.0)  # it may be reused
    return rule.change()


@pytest.mark.parametrize("spill", [False, True])
@pytest.mark.parametrize("clients", [1, 2, 3, 10, 11])
@pytest.mark.parametrize("columns", [3, robust.COLUMNS])
def test_rules_equal_numpy_s(generator, tmp_path, monkeypatch, clients, spill, columns):
    monkeypatch.setattr(robust, "COLUMNS", columns)
    base = torch.randn(17, generator=generator)
    stack = torch.randn(clients, 17, generator=generator)
    place = str(tmp_path) if spill else None
    changes = (stack - base).numpy()
    median = made(AggregationConfig(rule="median", spill=place), base, stack)
    np.testing.assert_allclose(median, np.median(changes, axis=0), rtol=1e-6, atol=1e-7)
    trimmed = made(AggregationConfig(rule="trimmed_mean", trim=0.2, spill=place), base, stack)
    cut = int(0.2 * clients)
    expected = np.sort(changes, axis=0)[cut : clients - cut].mean(axis=0)
    np.testing.assert_allclose(trimmed, expected, rtol=1e-5, atol=1e-6)
    assert list(tmp_path.iterdir()) == [], "the file has no name that could be left behind"


def test_no_client_changes_nothing():
    assert made(AggregationConfig(rule="median"), torch.ones(4), []).tolist() == [0.0] * 4


def test_one_wild_client_moves_the_mean_and_not_the_median(generator):
    base = torch.zeros(50)
    stack = 0.01 * torch.randn(9, 50, generator=generator)
    stack[4] = 1e6
    assert made(AggregationConfig(rule="mean"), base, stack).abs().min() > 1e4
    for rule in ("median", "trimmed_mean"):
        assert made(AggregationConfig(rule=rule, trim=0.2), base, stack).abs().max() < 0.1


def test_what_does_not_fit_is_refused_before_the_first_round(monkeypatch, tmp_path):
    monkeypatch.setattr(robust, "free_bytes", lambda device: 1000)
    check_room(AggregationConfig(rule="mean"), 10**9, 10**6)
    check_room(AggregationConfig(rule="median"), 10, 10)
    with pytest.raises(InputError, match=r"room for 10 vectors of 1,000 numbers.*Set aggregation.spill"):
        check_room(AggregationConfig(rule="median"), 1000, 10)
    check_room(AggregationConfig(rule="median", spill=str(tmp_path)), 1000, 10)
    with pytest.raises(InputError, match="of disk are free"):
        check_room(AggregationConfig(rule="median", spill=str(tmp_path)), 10**9, 10**9)
    with pytest.raises(InputError, match=r"aggregation\.spill.*a directory that exists"):
        check_room(AggregationConfig(rule="median", spill=str(tmp_path / "no")), 10, 10)


@pytest.mark.parametrize("rule", ["median", "trimmed_mean"])
def test_a_robust_run_has_the_same_bits_for_any_executor(text: Path, rule: str) -> None:
    own = {"aggregation": {"rule": rule}, "rounds": 2, "cohort": 4}
    runs = [
        simulate(tiny(text, **own, execution={"executor": name, "workers": 2}))
        for name in ("serial", "processes")
    ]
    assert len({run.summary["params_sha256"] for run in runs}) == 1
    assert (
        runs[0].summary["params_sha256"] != simulate(tiny(text, rounds=2, cohort=4)).summary["params_sha256"]
    )


def test_robust_rules_refuse_clients_trained_several_at_once(text: Path) -> None:
    with pytest.raises(InputError, match=r"aggregation\.rule.*Use execution\.at_once=1"):
        tiny(text, aggregation={"rule": "median"}, execution={"executor": "processes", "at_once": 4})
