"""Tests of whole runs whose clients compress: bits, resume, bytes, and the place among other steps."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.federations import features, left

from fedtlu_fast import Callback, ClientStep, InputError, RunConfig, simulate
from fedtlu_fast.build.parts import make_parts
from fedtlu_fast.build.run import founding
from fedtlu_fast.build.steps import make_steps
from fedtlu_fast.client_steps.recycling import Recycle
from fedtlu_fast.client_steps.sending import SendChosen
from fedtlu_fast.client_steps.threats import SignFlip
from fedtlu_fast.compression import TopK
from fedtlu_fast.experiments.estimate import estimate
from fedtlu_fast.parts import part
from fedtlu_fast.testing import check_client_step

OURS = [
    "top_k:0.2",
    "random_k:0.2",
    "quantise:4",
    "sign",
    "majority_vote:0.01",
    "majority_vote",
    "low_rank:1",
]
SERIAL, TWO = {}, {"executor": "processes", "workers": 2}
TOGETHER = {"executor": "vectorized", "clients_per_batch": 4}
CHOICES: dict[str, dict[str, Any]] = {
    "all": {},
    "before training": {"selector": "random", "budget": 2},
    "after training": {"selector": "drift", "budget": 2},
    "recycled": {"selector": "fedluar", "budget": 2},
}


def federation(
    steps: list[Any], execution: dict[str, Any] = SERIAL, choice: str = "all", **over: Any
) -> RunConfig:
    """Returns the settings of three rounds, the first of which is a warm-up."""
    given = {"client_selection": CHOICES[choice]} if CHOICES[choice] else {}
    over = {"rounds": 3, "warmup_rounds": 1, "evaluation": {"flops": "always"}, **given, **over}
    return features({"selector": "full"}, execution, client_steps=steps, **over)


@pytest.mark.parametrize("name", sorted({step.partition(":")[0] for step in OURS}))
def test_our_steps_pass_the_conformance_check(name: str) -> None:
    check_client_step(name)


@pytest.mark.parametrize("choice", ["all", "after training"])
@pytest.mark.parametrize("step", OURS)
def test_the_number_of_workers_does_not_change_the_bits(step: str, choice: str) -> None:
    plain = simulate(federation([], SERIAL, choice))
    one = simulate(federation([step], SERIAL, choice))
    assert one.summary["params_sha256"] != plain.summary["params_sha256"]
    assert one.summary["bytes_up"] < plain.summary["bytes_up"]
    for execution in (TWO, TOGETHER):
        other = simulate(federation([step], execution, choice))
        if execution is TWO:
            assert other.summary["params_sha256"] == one.summary["params_sha256"]
        assert other.summary["bytes_up"] == one.summary["bytes_up"]


@pytest.mark.parametrize("step", OURS)
def test_a_stopped_run_goes_on_with_the_same_bits(step: str, tmp_path: Path) -> None:
    config = federation([step], choice="before training", checkpoint={"every": 1})

    def stop(row: dict[str, Any]) -> None:
        if row["round"] == 2:
            raise KeyboardInterrupt

    simulate(config, tmp_path / "whole")
    with pytest.raises(Exception, match="you can resume it with"):
        simulate(config, tmp_path / "cut", callbacks=[stop])
    simulate(config, tmp_path / "cut", resume=True)
    assert left(tmp_path / "cut") == left(tmp_path / "whole")


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("step", [None, *OURS])
def test_the_summary_and_the_costs_count_the_same_messages(
    step: str | None, choice: str, tmp_path: Path
) -> None:
    config = federation([] if step is None else [step], choice=choice)
    result = simulate(config, tmp_path / "out")
    steps, blocks = steps_of(config), tuple(range(len(result.layout.blocks)))
    expected = []
    for row in result.selection:
        sent = row.get("sent_blocks", row.get("client_blocks", [blocks] * len(row["cohort"])))
        pairs = zip(row["cohort"], sent, strict=True)
        expected.append(sum(steps.message_bytes(client, tuple(own)) for client, own in pairs))
    assert [row["bytes_up"] for row in result.metrics] == expected
    assert result.summary["bytes_up"] == sum(expected)
    costs = json.loads((tmp_path / "out" / "costs.json").read_text())["rounds"]
    assert [row["bytes_up"] - row["probe_bytes_up"] for row in costs] == expected


def steps_of(config: RunConfig) -> Any:
    parts = make_parts(config)
    return make_steps(config, parts.trainer, parts.population)


def test_a_dry_run_counts_compressed_messages() -> None:
    config = federation(["top_k:0.2"])
    with founding(config) as (settled, founded):
        found, layout = estimate(settled, founded), founded.server.layout
    blocks = tuple(range(len(layout.blocks)))
    assert found.upload_bytes == config.cohort * TopK(0.2).message_bytes(layout, blocks)


def test_compression_comes_last_whatever_the_order_of_the_settings() -> None:
    config = federation(["top_k", "scaffold"], choice="recycled", threats=["sign_flip:0.2"])
    config = config.model_copy(update={"training": config.training.model_copy(update={"clip_norm": None})})
    found = [type(step).__name__ for step in steps_of(config).steps]
    assert found == ["Scaffold", SignFlip.__name__, SendChosen.__name__, Recycle.__name__, "TopK"]


@part
class Free(ClientStep):
    """Says that messages have this length."""

    length: float = 0

    def message_bytes(self, layout: Any, blocks: Any) -> Any:
        return self.length if self.length != int(self.length) else int(self.length)


def test_a_step_of_ones_own_says_how_long_its_messages_are() -> None:
    assert simulate(federation([Free(11)])).summary["bytes_up"] == 3 * 7 * 11
    assert simulate(federation([Free(11), TopK(1.0)])).summary["bytes_up"] > 3 * 7 * 11, "the last one counts"


@pytest.mark.parametrize("wrong", [-1, 0.5])
def test_a_length_that_is_no_number_of_bytes_is_refused(wrong: float) -> None:
    with pytest.raises(InputError, match=r"client_steps\.Free: message_bytes\(\)"):
        simulate(federation([Free(wrong)]))


@pytest.mark.parametrize("threat", ["sign_flip:0.5", "a_little_is_enough:0.5"])
@pytest.mark.parametrize("step", ["top_k:0.2", "majority_vote", "low_rank:1"])
def test_malicious_clients_send_as_many_bytes(step: str, threat: str) -> None:
    harmed, plain = simulate(federation([step], threats=[threat])), simulate(federation([step]))
    assert harmed.summary["bytes_up"] == plain.summary["bytes_up"]
    assert harmed.summary["params_sha256"] != plain.summary["params_sha256"]
    assert harmed.summary["refused_updates"] == 0


@pytest.mark.parametrize("rule", ["median", "multi_krum"])
def test_votes_are_counted_under_another_rule(rule: str) -> None:
    aggregation = {"rule": rule, **({"byzantine": 2} if rule == "multi_krum" else {})}
    config = federation(["majority_vote:0.5"], aggregation=aggregation, rounds=1, warmup_rounds=0)
    with founding(config) as (_, founded):
        start = founded.state.params.clone()
    moved = (simulate(config).params - start).abs()
    assert ((moved < 1e-6) | ((moved - 0.5).abs() < 1e-6)).all()
    assert (moved > 0.4).float().mean() > 0.5


@pytest.mark.parametrize("step", ["sign", "majority_vote:0.5", "top_k:0.2"])
def test_personal_blocks_stay_on_the_server_as_they_are(step: str) -> None:
    chosen = {"selector": "full", "personal": ["8"]}
    seen = []
    config = federation([step], client_selection=chosen, warmup_rounds=1)
    with founding(config) as (_, founded):
        layout = founded.server.layout
    assert layout.blocks[-1].name == "8"
    result = simulate(config, callbacks=[Params(seen)])
    (own,) = layout.runs([len(layout.blocks) - 1])
    assert torch.equal(seen[0][own], seen[-1][own])
    assert not torch.equal(seen[0], seen[-1])
    assert result.summary["personal_blocks"] == ["8"]


class Params(Callback):
    """Keeps the global parameters after every round."""

    def __init__(self, seen: list[torch.Tensor]) -> None:
        self.seen = seen

    def on_round_end(self, run: Any) -> None:
        self.seen.append(torch.as_tensor(run.params).clone())
