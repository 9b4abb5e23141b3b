"""Finite numbers that overflow: who is refused, what is left out, and when a run ends."""

import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.federations import timeless, tiny

from fedtlu_fast import simulate
from fedtlu_fast.build.run import open_run
from fedtlu_fast.clients.training import ClientUpdate, LocalTrainer
from fedtlu_fast.simulation import records
from fedtlu_fast.simulation.server import Server
from fedtlu_fast.simulation.state import ServerState
from fedtlu_fast.soundness import LARGEST, sound, sound_rows
from fedtlu_fast.tasks.metrics import Evaluation

FAR = [1e38, math.inf, -LARGEST, math.nan]


def _send(monkeypatch: pytest.MonkeyPatch, client: int, value: float, place: Any = slice(None)) -> None:
    """Has one client send a value in some places, and say nothing of it."""
    train = LocalTrainer.train

    def sent(self: LocalTrainer, *arguments: Any) -> ClientUpdate:
        update = train(self, *arguments)
        if arguments[4] == client:
            update.params[place] = value
        return update

    monkeypatch.setattr(LocalTrainer, "train", sent)


@pytest.mark.parametrize("value", FAR)
def test_what_goes_beyond_the_limit_is_not_sound(value: float) -> None:
    matrix = torch.zeros(3, 5)
    matrix[1, 4] = value
    assert sound_rows(matrix) == [True, False, True]
    assert [sound(row) for row in matrix] == [True, False, True]
    assert sound(torch.empty(0))
    assert sound(torch.full((3,), LARGEST / 2))


@pytest.mark.parametrize("place", [slice(None), 7], ids=["all", "one number"])
@pytest.mark.parametrize("rule", ["mean", "median", "krum", "norm_clip"])
def test_a_client_of_huge_finite_numbers_is_refused_under_every_rule(
    text: Path, monkeypatch: pytest.MonkeyPatch, rule: str, place: Any
) -> None:
    aggregation = {"rule": rule, **({"byzantine": 0} if rule == "krum" else {})}
    config = tiny(text, clients=5, cohort=5, rounds=3, warmup_rounds=1, aggregation=aggregation)
    _send(monkeypatch, 3, 1e38, place)
    result = simulate(config)
    assert [row["refused"] for row in result.metrics] == [[3]] * 3
    assert result.summary["refused_updates"] == 3
    assert all(row["selected"] for row in result.metrics)
    assert not any(row["nonfinite_blocks"] for row in result.metrics)
    assert result.summary["test_loss"] < 4


@pytest.mark.parametrize("kind", ["scaling", "a_little_is_enough", "noise"])
def test_threats_of_huge_strength_are_refused(text: Path, kind: str) -> None:
    threats = [{"kind": kind, "share": 0.5, "strength": 1e38}]
    result = simulate(tiny(text, clients=4, cohort=4, rounds=3, threats=threats))
    assert [sorted(row["refused"]) for row in result.metrics] == [
        sorted(row["adversaries"]) for row in result.metrics
    ]
    assert all(len(row["refused"]) == 2 for row in result.metrics)
    assert result.summary["test_loss"] < 4


def test_when_everybody_is_refused_nothing_is_selected_or_published(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(text, clients=2, cohort=2, rounds=3, warmup_rounds=1)
    for client in range(2):
        _send(monkeypatch, client, 1e38)
    result = simulate(config)
    for row in result.metrics:
        assert (row["selected"], row["bytes_published"], row["updated_share"]) == ([], 0, 0)
    assert torch.equal(result.params, open_run(config).state.params)


@pytest.mark.parametrize("step", ["none", "momentum", "adam"])
def test_blocks_whose_new_values_overflow_are_left_out_and_named(
    text: Path, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    result = simulate(tiny(text, rounds=3, aggregation={"server_optimizer": step}, server_lr=1e38))
    names = [block.name for block in result.layout.blocks]
    for row in result.metrics:
        assert set(row["nonfinite_blocks"]).isdisjoint(row["selected"])
        assert row["bytes_published"] == 4 * sum(
            size
            for name, size in zip(names, result.layout.block_sizes(), strict=True)
            if name in row["selected"]
        )
    assert result.metrics[0]["nonfinite_blocks"] == names
    assert sound(result.params)
    assert sum("left out" in record.message for record in caplog.records) == 1


def test_rounds_in_which_nothing_could_be_used_are_warned_of_once(
    text: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = simulate(tiny(text, training={"lr": 1e38}))
    assert all(row["refused"] and not row["selected"] for row in result.metrics)
    assert caplog.text.count("the model did not change") == 1


def test_a_run_whose_test_gives_no_number_ends_and_stays_ended(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It has a summary, a report and a directory that can be asked again, and trains no round more."""
    config, out = tiny(text, checkpoint={"every": 1}), tmp_path / "out"
    whole = simulate(config)
    test = records.global_test

    def broken(server: Server, state: ServerState) -> Evaluation:
        found = test(server, state)
        return found if state.round < 3 else replace(found, losses=found.losses * math.nan)

    monkeypatch.setattr(records, "global_test", broken)
    result = simulate(config, out)
    assert [row["diverged"] for row in result.metrics] == [False, False, True]
    assert result.metrics[-1]["test_loss"] is None
    assert result.summary["diverged_round"] == result.summary["rounds"] == 3
    assert [row["train_loss"] for row in result.metrics] == [row["train_loss"] for row in whole.metrics[:3]]
    assert caplog.text.count("diverged") == 1
    assert (out / "report.html").exists()
    again = simulate(config, out, resume=True)
    assert timeless(again.metrics) == timeless(result.metrics)
    assert timeless([again.summary]) == timeless([result.summary])


def test_a_start_without_a_loss_is_said_before_round_1(text: Path) -> None:
    with closing(open_run(tiny(text))) as run:
        run.state = replace(run.state, params=torch.full_like(run.state.params, math.nan))
        with pytest.raises(ValueError, match="before round 1"):
            run.advance(1)
        assert run.state.round == 0
