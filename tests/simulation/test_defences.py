"""Whole runs with robust rules and server optimizers: same bits everywhere, honest records, resumed state."""

import json
import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.choosing import momentum_of
from support.federations import left, timeless, tiny
from support.model_zoo import ResNet
from torch import Tensor
from torch.nn import functional as F

from fedtlu_fast import simulate
from fedtlu_fast.build.executor import make_executor
from fedtlu_fast.build.run import founding, open_run
from fedtlu_fast.build.server import make_server
from fedtlu_fast.build.steps import make_steps
from fedtlu_fast.clients.training import ClientUpdate, LocalTrainer
from fedtlu_fast.data.population import ArrayPopulation, Batch, Shares
from fedtlu_fast.experiments.estimate import estimate
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.simulation.round import RULE, run_round
from fedtlu_fast.simulation.server import initial_state

RULES: dict[str, dict[str, Any]] = {
    "median": {"rule": "median"},
    "trimmed_mean": {"rule": "trimmed_mean"},
    "krum": {"rule": "krum", "byzantine": 1},
    "multi_krum": {"rule": "multi_krum", "byzantine": 1, "multi_krum": 3},
    "norm_clip": {"rule": "norm_clip"},
    "norm_clip with a number": {"rule": "norm_clip", "clip": 0.01},
    "geometric_median": {"rule": "geometric_median"},
    "centered_clipping": {"rule": "centered_clipping", "iterations": 2},
}
STEPS: dict[str, dict[str, Any]] = {
    "momentum": {"server_optimizer": "momentum"},
    "adam": {"server_optimizer": "adam"},
}


def federation(text: Path, aggregation: dict[str, Any], **over: Any) -> Any:
    settings: dict[str, Any] = {"clients": 8, "cohort": 5, "rounds": 3, "warmup_rounds": 1, **over}
    return tiny(text, aggregation=aggregation, **settings)


@pytest.mark.parametrize("rule", RULES)
def test_the_bits_do_not_depend_on_who_trains_or_where_the_stack_lies(
    text: Path, tmp_path: Path, rule: str
) -> None:
    plain = simulate(federation(text, RULES[rule]))
    others = [
        simulate(federation(text, {**RULES[rule], "spill": str(tmp_path)})),
        simulate(federation(text, RULES[rule], execution={"executor": "processes", "workers": 2})),
    ]
    for other in others:
        assert timeless(other.metrics) == timeless(plain.metrics)
        assert other.summary["params_sha256"] == plain.summary["params_sha256"]
    assert plain.summary["params_sha256"] != simulate(federation(text, {})).summary["params_sha256"]


def _send(monkeypatch: pytest.MonkeyPatch, clients: set[int], value: float) -> None:
    """Has these clients send a vector full of `value`."""
    train = LocalTrainer.train

    def sent(self: LocalTrainer, *arguments: Any) -> ClientUpdate:
        update = train(self, *arguments)
        if arguments[4] not in clients:
            return update
        return replace(update, params=torch.full_like(update.params, value))

    monkeypatch.setattr(LocalTrainer, "train", sent)


def test_krum_names_the_client_whose_change_is_applied(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one client refused before it, places are not the cohort's any more."""
    config = federation(text, {"rule": "krum", "byzantine": 0}, rounds=1, selection={"selector": "full"})
    cohort = simulate(config).selection[0]["cohort"]
    _send(monkeypatch, {cohort[0]}, math.nan)
    result = simulate(config)
    (row,) = result.metrics
    assert row["refused"] == [cohort[0]]
    (kept,) = row["kept_clients"]
    assert kept in cohort[1:]
    run = open_run(config)
    start, own = run.state, run.server.population.train(kept)
    update = run.server.trainer.train(start.params, start.buffers, own, 1, kept)
    torch.testing.assert_close(result.params, update.params, rtol=0, atol=1e-7)


@pytest.mark.parametrize("rule", RULES)
def test_a_wild_client_ruins_the_mean_and_no_robust_rule(
    text: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    settings = {**RULES[rule], **({"trim": 0.2} if rule == "trimmed_mean" else {})}
    config = federation(text, settings, clients=5)
    _send(monkeypatch, {3}, 1e3)
    result = simulate(config)
    assert result.summary["test_loss"] < 4
    assert all(3 not in (row["kept_clients"] or []) for row in result.metrics)
    assert simulate(federation(text, {}, clients=5)).summary["test_loss"] > 10


def test_a_rule_s_memory_is_of_the_run_and_is_resumed(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = federation(text, RULES["centered_clipping"], rounds=4)
    whole = simulate(config)
    simulate(federation(text, RULES["centered_clipping"], rounds=2), tmp_path / "out")
    resumed = simulate(config, tmp_path / "out", resume=True)
    assert resumed.summary["params_sha256"] == whole.summary["params_sha256"]
    with closing(open_run(config)) as run:
        run.advance(2)
        before = run.state.memory[RULE].server["centre"]
        assert before.any()
        with monkeypatch.context() as patch:
            _send(patch, set(range(8)), math.nan)
            run.advance(3)
        assert run.state.memory[RULE].server["centre"] is before, "nobody's change is no change of zero"
        run.advance(4)
        assert not torch.equal(run.state.memory[RULE].server["centre"], before)


def test_rules_that_take_all_clients_say_nothing_of_kept_ones(text: Path) -> None:
    assert {row["kept_clients"] for row in simulate(federation(text, {})).metrics} == {None}
    assert {row["kept_clients"] for row in simulate(federation(text, RULES["median"])).metrics} == {None}


@pytest.mark.parametrize("step", [{}, *STEPS.values()], ids=str)
def test_when_too_few_arrive_for_krum_nothing_changes(
    text: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: dict[str, Any]
) -> None:
    config = federation(text, {**RULES["krum"], **step}, clients=5, selection={"selector": "random"})
    with closing(open_run(config, tmp_path / "out")) as run:
        run.advance(2)
        before = run.state
        with monkeypatch.context() as patch:
            _send(patch, {3}, math.nan)
            run.advance(3)
        row = run.metrics[-1]
        assert row["refused"] == [3]
        assert (row["kept_clients"], row["selected"], row["bytes_published"]) == ([], [], 0)
        assert torch.equal(run.state.params.view(torch.int32), before.params.view(torch.int32))
        for name, vector in momentum_of(before).items():
            assert torch.equal(momentum_of(run.state)[name], vector)
        assert len(momentum_of(before)) == run.server.optimizer.vectors


@pytest.mark.parametrize("step", STEPS)
def test_momentum_does_not_move_the_model_when_every_client_is_refused(
    text: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with closing(open_run(federation(text, STEPS[step]))) as run:
        run.advance(2)
        before = run.state
        assert any(vector.any() for vector in momentum_of(before).values())
        _send(monkeypatch, set(range(8)), math.nan)
        run.advance(3)
        assert torch.equal(run.state.params, before.params)
        assert momentum_of(run.state) is momentum_of(before)


@pytest.mark.parametrize("step", STEPS)
def test_the_optimizer_steps_from_the_change_that_is_scored(
    text: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Round 1 starts from the same parameters with and without: same scores, same choice, another step."""
    given = {"rounds": 1, "warmup_rounds": 0, "selection": {"unique": "never"}}
    with_it = simulate(federation(text, {**STEPS[step]}, **given, server_lr=0.5))
    without = simulate(federation(text, {}, **given, server_lr=0.5))
    assert with_it.selection == without.selection
    start = open_run(federation(text, {}, **given)).state.params
    moved = without.params - start
    if step == "momentum":
        assert torch.equal(with_it.params, without.params), "the first step of momentum is the change"
    else:
        change = 2 * moved.double()
        expected = 0.5 * 0.1 * change / ((0.99e-6 + 0.01 * change.square()).sqrt() + 1e-3)
        torch.testing.assert_close((with_it.params - start).double(), expected, rtol=1e-3, atol=1e-5)
    assert torch.equal(with_it.params == start, without.params == start), "blocks not chosen stay"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("rule", ["mean", "multi_krum"])
def test_layers_that_are_not_applied_keep_parameters_and_state(text: Path, step: str, rule: str) -> None:
    settings = {**RULES.get(rule, {}), **STEPS[step]}
    config = federation(text, settings, selection={"unique": "never"}, server_lr=0.1)
    with closing(open_run(config)) as run:
        run.advance(1)
        for index in (2, 3):
            before = run.state
            run.advance(index)
            after, chosen = run.state, set(run.metrics[-1]["selected"])
            for block in run.layout.blocks:
                for layer in (run.layout.layers[place] for place in block.layers):
                    own = slice(layer.offset, layer.offset + layer.numel)
                    pairs = [(before.params, after.params)]
                    pairs += [
                        (momentum_of(before)[name], momentum_of(after)[name]) for name in momentum_of(after)
                    ]
                    for old, new in pairs:
                        assert torch.equal(old[own], new[own]) == (block.name not in chosen)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("rounds", [1, 3])
def test_a_killed_run_goes_on_with_the_optimizer_s_state(
    text: Path, tmp_path: Path, step: str, rounds: int
) -> None:
    class Killed(BaseException):
        pass

    def kill(row: dict[str, Any]) -> None:
        if row["round"] == rounds:
            raise Killed

    config = tiny(text, aggregation=STEPS[step], server_lr=0.1)
    simulate(config, tmp_path / "whole")
    with pytest.raises(Killed):
        simulate(config, tmp_path / "out", callbacks=[kill])
    simulate(config, tmp_path / "out", resume=True)
    assert left(tmp_path / "out") == left(tmp_path / "whole")
    states = [
        load_file(tmp_path / name / "checkpoints/round-000005/memory.safetensors")
        for name in ("out", "whole")
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_an_arm_that_takes_over_the_warm_up_takes_over_the_optimizer(text: Path, tmp_path: Path) -> None:
    config = federation(text, STEPS["adam"], rounds=3, warmup_rounds=2, server_lr=0.1)
    with closing(open_run(config, tmp_path / "warm-up")) as run:
        run.advance(2)
    with closing(open_run(config, tmp_path / "arm")) as arm:
        arm.adopt(tmp_path / "warm-up")
        arm.advance(3)
        assert arm.finish().summary["params_sha256"] == simulate(config).summary["params_sha256"]


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def _unmention(file: Path) -> None:
    state = file.with_name("state.json")
    state.write_text(json.dumps({**json.loads(state.read_text()), "memory_sha256": None}))


@pytest.mark.parametrize("damage", [_flip, Path.unlink, _unmention])
def test_a_checkpoint_with_a_damaged_optimizer_is_passed_over(
    text: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    config, out = tiny(text, aggregation=STEPS["adam"], rounds=4), tmp_path / "out"
    simulate(config, out)
    damage(out / "checkpoints/round-000004/memory.safetensors")
    with closing(open_run(config, out, resume=True)) as run:
        assert run.state.round == 2
        assert set(momentum_of(run.state)) == {"mean", "square"}


def test_a_run_without_an_optimizer_remembers_nothing_of_it(text: Path, tmp_path: Path) -> None:
    remembered = {}
    for name in ("none", "momentum"):
        simulate(tiny(text, aggregation={"server_optimizer": name}), tmp_path / name)
        kept = load_file(tmp_path / name / "checkpoints/round-000005/memory.safetensors")
        remembered[name] = {key for key in kept if "ServerOptimizer" in key}
    assert not remembered["none"]
    assert len(remembered["momentum"]) == 1


def test_the_dry_run_counts_the_stack_and_the_optimizer_s_vectors(text: Path, tmp_path: Path) -> None:
    def found(**aggregation: Any) -> Any:
        with founding(federation(text, aggregation)) as (settled, founded):
            return estimate(settled, founded)

    plain = found()
    vector = 4 * plain.parameters
    assert found(**RULES["krum"]).server_bytes == plain.server_bytes + 5 * vector
    assert found(**RULES["krum"], spill=str(tmp_path)).server_bytes == plain.server_bytes
    assert found(rule="norm_clip", clip=1.0).server_bytes == plain.server_bytes
    adam = found(**STEPS["adam"])
    assert adam.server_bytes == plain.server_bytes + 2 * 2 * vector
    assert adam.checkpoint_bytes == plain.checkpoint_bytes + 3 * 2 * vector


class _Images:
    """A task on pictures, for a model with BatchNorm."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = ResNet()

    def loss(self, batch: Batch) -> Tensor:
        return self.losses(batch).mean()

    def losses(self, batch: Batch) -> Tensor:
        zeros = torch.zeros(len(batch[0]), dtype=torch.int64)
        return F.cross_entropy(self.model(batch[0]), zeros, reduction="none")

    def trim(self, batch: Batch) -> Batch:
        return batch

    def sample_losses(self, batch: Batch, batch_size: int) -> Tensor:
        raise NotImplementedError


def test_batchnorm_statistics_are_those_of_the_clients_that_krum_keeps(text: Path) -> None:
    config = federation(text, RULES["krum"], clients=5, training={"local_steps": 2, "batch_size": 2})
    task = _Images()
    layout = ParameterLayout.from_module(task.model)
    state = initial_state(layout, task.model)
    samples = torch.randn(20, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    shares = Shares.of(np.split(np.arange(20), 5))
    population = ArrayPopulation((samples,), shares, shares, (samples,), "")
    trainer = LocalTrainer(task, layout, config.training.local, config.seed)
    steps = make_steps(config, trainer, population)
    executor = make_executor(config, population, trainer, steps)
    server = make_server(config, layout, population, trainer, executor, steps)
    after, record = run_round(server, state)
    assert record.kept_clients is not None
    (kept,) = record.kept_clients
    update = trainer.train(state.params, state.buffers, population.train(kept), 1, kept)
    torch.testing.assert_close(after.buffers, update.buffers, rtol=1e-5, atol=1e-6)
    assert not torch.equal(after.buffers, state.buffers)
