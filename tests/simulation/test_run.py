import json
import math
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.federations import left, rows, timeless, tiny
from support.model_zoo import ResNet
from torch import Tensor
from torch.nn import functional as F

from fedtlu_fast import simulate
from fedtlu_fast.build.executor import make_executor
from fedtlu_fast.build.run import open_run
from fedtlu_fast.build.server import make_server
from fedtlu_fast.build.steps import make_steps
from fedtlu_fast.clients.training import ClientUpdate, LocalTrainer
from fedtlu_fast.data.population import ArrayPopulation, Batch, Shares
from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.simulation.round import run_round
from fedtlu_fast.simulation.server import initial_state
from fedtlu_fast.tasks.metrics import Evaluation


def test_same_settings_give_the_same_bits_and_logs(text: Path, tmp_path: Path) -> None:
    config = tiny(text)
    simulate(config, tmp_path / "one")
    simulate(config, tmp_path / "two")
    assert left(tmp_path / "one") == left(tmp_path / "two")
    first, second = (torch.get_rng_state(), simulate(config))
    assert torch.equal(first, torch.get_rng_state()), "a run drew from the caller's generator"
    assert second.summary["params_sha256"] == left(tmp_path / "one")["summary"][0]["params_sha256"]


def test_caller_s_generator_does_not_matter(text: Path) -> None:
    config = tiny(text, rounds=2)
    torch.manual_seed(1)
    one = simulate(config)
    torch.manual_seed(2)
    assert simulate(config).summary["params_sha256"] == one.summary["params_sha256"]


def test_result_equals_the_files(text: Path, tmp_path: Path) -> None:
    result = simulate(tiny(text), tmp_path / "out")
    bare = simulate(tiny(text))
    out = result.out
    assert out is not None
    assert bare.out is None
    assert json.loads((out / "summary.json").read_text()) == result.summary
    assert rows(out / "metrics.jsonl") == result.metrics
    assert rows(out / "selection.jsonl") == result.selection == bare.selection
    assert timeless(bare.metrics) == timeless(result.metrics)
    assert timeless([bare.summary]) == timeless([result.summary])
    assert torch.equal(bare.params, result.params)


def test_summary_has_the_public_names_and_adds_up(text: Path) -> None:
    result = simulate(tiny(text))
    summary, metrics = result.summary, result.metrics
    assert {"rounds", "test_perplexity", "local_perplexity", "seconds", "params_sha256"} <= summary.keys()
    assert summary["rounds"] == 5
    assert summary["test_perplexity"] == metrics[-1]["test_perplexity"]
    assert summary["local_perplexity"] == metrics[-1]["local_perplexity"]
    assert summary["test_perplexity"] == pytest.approx(math.exp(summary["test_loss"]))
    assert summary["bytes_up"] == 5 * 2 * 4 * summary["parameters"]
    assert summary["bytes_published"] == sum(row["bytes_published"] for row in metrics)
    assert summary["parameters"] == result.params.numel()
    assert summary["updated_share"] == pytest.approx(sum(row["updated_share"] for row in metrics[2:]) / 3)


def test_another_seed_gives_other_bits_cohorts_and_choices(text: Path) -> None:
    one, two = (simulate(tiny(text, seed=seed)) for seed in (0, 1))
    assert one.summary["params_sha256"] != two.summary["params_sha256"]
    assert [row["cohort"] for row in one.selection] != [row["cohort"] for row in two.selection]


@pytest.mark.parametrize("selector", ["fedtlu", "random", "last", "first"])
def test_warmup_updates_every_block_and_then_keep_blocks_of_a_group(text: Path, selector: str) -> None:
    result = simulate(tiny(text, selection={"selector": selector, "keep": 2}))
    layout = result.layout
    group = {layout.blocks[index].name for index in layout.groups[0].blocks}
    unique = {layout.blocks[index].name for index in layout.unique}
    assert group
    assert unique
    for row in result.metrics:
        chosen = set(row["selected"])
        assert row["warmup"] == (row["round"] <= 2)
        if row["warmup"]:
            assert chosen == group | unique
            assert row["updated_share"] == 1
        else:
            assert chosen >= unique
            assert len(chosen & group) == 2
            assert row["updated_share"] < 1


def test_fedtlu_updates_the_best_scoring_blocks_it_logged(text: Path) -> None:
    result = simulate(tiny(text))
    names = [result.layout.blocks[index].name for index in result.layout.groups[0].blocks]
    for row in result.selection[2:]:
        best = max(names, key=lambda name: row["block_scores"][name])
        assert set(row["selected"]) & set(names) == {best}


def test_unique_never_leaves_embeddings_alone(text: Path) -> None:
    result = simulate(tiny(text, selection={"unique": "never"}))
    names = {result.layout.blocks[index].name for index in result.layout.groups[0].blocks}
    assert all(set(row["selected"]) <= names for row in result.metrics[2:])


def test_blocks_that_were_not_chosen_keep_their_bits(text: Path, tmp_path: Path) -> None:
    config = tiny(text, checkpoint={"every": 1, "retain": 9}, selection={"unique": "never"})
    result = simulate(config, tmp_path / "out")
    folder = tmp_path / "out" / "checkpoints"
    states = [load_file(folder / f"round-{index:06d}" / "model.safetensors") for index in range(1, 6)]
    layout = result.layout
    for before, after, row in zip(states, states[1:], result.metrics[1:], strict=False):
        for block in layout.blocks:
            names = [layout.layers[index].name for index in block.layers]
            same = [torch.equal(before[name], after[name]) for name in names]
            if block.name in row["selected"]:
                assert not any(same)
            else:
                assert all(same)
    flat = torch.cat([states[-1][layer.name].reshape(-1) for layer in layout.layers])
    assert torch.equal(flat, result.params)


def _spoil(monkeypatch: pytest.MonkeyPatch, clients: set[int], value: float = math.nan) -> None:
    """These clients send back a change with one number that is none."""
    train = LocalTrainer.train

    def spoilt(self: LocalTrainer, *args: Any) -> ClientUpdate:
        update = train(self, *args)
        if args[4] in clients and args[3] <= 5:
            update.params[3] = value
        return update

    monkeypatch.setattr(LocalTrainer, "train", spoilt)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_refused_updates_are_counted_reported_and_not_averaged_in(
    text: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    config = tiny(text, cohort=4, rounds=1, warmup_rounds=1, selection={"selector": "full"})
    healthy = simulate(config)
    cohort = healthy.selection[0]["cohort"]
    _spoil(monkeypatch, {cohort[1], cohort[2]}, value)
    result = simulate(config)
    assert result.metrics[0]["refused"] == [cohort[1], cohort[2]]
    assert result.summary["refused_updates"] == 2
    assert bool(torch.isfinite(result.params).all())

    # The same as a federation in which only the other two took part.
    run = open_run(config)
    base, total, weights = run.state.params.clone(), torch.zeros(run.layout.size, dtype=torch.float64), 0
    for client in (cohort[0], cohort[3]):
        own = run.server.population.train(client)
        update = run.server.trainer.train(base, run.state.buffers, own, 1, client)
        total += update.samples * (update.params.double() - base.double())
        weights += update.samples
    torch.testing.assert_close(result.params.double(), base.double() + total / weights, rtol=1e-6, atol=1e-7)
    assert not torch.equal(result.params, healthy.params)


def test_model_is_unchanged_when_every_client_is_refused(
    text: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tiny(text, rounds=3)
    start = open_run(config).state
    _spoil(monkeypatch, {0, 1, 2, 3})
    result = simulate(config, tmp_path / "out")
    assert torch.equal(result.params, start.params)
    assert result.summary["refused_updates"] == 3 * 2
    assert [row["train_loss"] for row in result.metrics] == [None] * 3
    assert rows(tmp_path / "out" / "metrics.jsonl") == result.metrics


def test_learning_rate_that_explodes_is_survived_and_reported(text: Path, tmp_path: Path) -> None:
    config = tiny(text, training={"lr": 1e38, "clip_norm": None, "local_steps": 3})
    result = simulate(config, tmp_path / "out")
    assert result.summary["refused_updates"] == 5 * 2
    assert torch.equal(result.params, open_run(config).state.params)


def test_perplexity_that_is_no_number_is_null_in_result_and_files(
    text: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    endless = Evaluation(torch.tensor([1e4], dtype=torch.float64), torch.tensor([1]))
    monkeypatch.setattr("fedtlu_fast.simulation.records.global_test", lambda *_: endless)
    result = simulate(tiny(text), tmp_path / "out")
    assert {row["test_perplexity"] for row in result.metrics} == {None}
    assert result.summary["test_perplexity"] is None
    assert rows(tmp_path / "out" / "metrics.jsonl") == result.metrics


def test_tests_are_made_when_the_settings_say(text: Path) -> None:
    result = simulate(tiny(text, rounds=7, evaluation={"every": 3, "local_every": 4}))
    assert [row["round"] for row in result.metrics if row["test_loss"] is not None] == [3, 6, 7]
    assert [row["round"] for row in result.metrics if row["local_loss"] is not None] == [4, 7]
    assert all((row["test_loss"] is None) == (row["test_perplexity"] is None) for row in result.metrics)


def test_how_often_the_model_is_tested_does_not_change_it(text: Path) -> None:
    often, seldom = (simulate(tiny(text, evaluation={"every": n, "trained_clients": n})) for n in (1, 4))
    assert often.summary["params_sha256"] == seldom.summary["params_sha256"]


def test_no_trained_clients_means_no_such_test(text: Path) -> None:
    summary = simulate(tiny(text, rounds=1, evaluation={"trained_clients": 0})).summary
    assert summary["trained_local_loss"] is None
    assert summary["trained_local_perplexity"] is None


def test_local_loss_is_the_mean_over_clients_not_over_samples(text: Path) -> None:
    run = open_run(tiny(text, rounds=1))
    run.advance(1)
    run.server.trainer.load_(run.state.params, run.state.buffers)
    own = []
    held = [run.server.population.held_out(client) for client in range(run.server.population.clients)]
    for client in held:
        (samples,) = client.all()
        with torch.no_grad():
            logits = run.server.trainer.task.model(input_ids=samples[:, :-1]).logits
        own.append(float(F.cross_entropy(logits.flatten(0, 1), samples[:, 1:].flatten())))
    assert len({len(client) for client in held}) > 1, "the means would not differ"
    assert run.metrics[0]["local_loss"] == pytest.approx(sum(own) / len(own), rel=1e-5)


def test_caller_s_thread_setting_comes_back(text: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        simulate(tiny(text, rounds=1, threads=1))
        assert torch.get_num_threads() == 3
        seen = []
        simulate(tiny(text, rounds=1, threads=2), callbacks=[lambda _: seen.append(torch.get_num_threads())])
        assert seen == [3], "observers are the caller's"
        with closing(open_run(tiny(text, rounds=1, threads=2))) as run, run.own_state():
            assert torch.get_num_threads() == 2
        with pytest.raises(InputError):
            simulate(tiny(text, threads=1, selection={"keep": 99}))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_kernels_give_the_same_bits_with_any_backend(text: Path) -> None:
    found = {name: simulate(tiny(text, backend=name)) for name in ("native", "reference")}
    assert len({result.summary["params_sha256"] for result in found.values()}) == 1


def test_observer_sees_every_row(text: Path) -> None:
    seen: list[dict[str, Any]] = []
    result = simulate(tiny(text), callbacks=[seen.append])
    assert seen == result.metrics


def test_settings_may_be_a_mapping_and_are_checked(text: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cohort"):
        simulate({"clients": 2, "cohort": 3}, tmp_path / "out")
    with pytest.raises(InputError, match="keep"):
        simulate(tiny(text, selection={"keep": 4}), tmp_path / "out")
    with pytest.raises(InputError, match="device"):
        simulate(tiny(text, device="cuda:99"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


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

    def counts(self, batch: Batch) -> Tensor:
        raise NotImplementedError

    def trim(self, batch: Batch) -> Batch:
        return batch

    def evaluate(self, batch: Batch, batch_size: int) -> Evaluation:
        raise NotImplementedError


def test_batchnorm_statistics_are_averaged_with_the_clients_weights(text: Path) -> None:
    config = tiny(text, clients=2, cohort=2, warmup_rounds=0, training={"local_steps": 2, "batch_size": 2})
    task = _Images()
    layout = ParameterLayout.from_module(task.model)
    state = initial_state(layout, task.model)
    samples = torch.randn(12, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    shares = Shares.of([np.arange(3), np.arange(3, 12)])
    population = ArrayPopulation((samples,), shares, shares, (samples,), "")
    trainer = LocalTrainer(task, layout, config.training.local, config.seed)
    steps = make_steps(config, trainer, population)
    executor = make_executor(config, population, trainer, steps)
    server = make_server(config, layout, population, trainer, executor, steps)
    assert layout.buffers, "the model has running statistics"
    expected = torch.zeros_like(state.buffers, dtype=torch.float64)
    for client in (0, 1):
        update = trainer.train(state.params, state.buffers, population.train(client), 1, client)
        expected += update.samples / 12 * update.buffers.double()
    before = state.params.clone(), state.buffers.clone()
    after, _ = run_round(server, state)
    torch.testing.assert_close(after.buffers.double(), expected, rtol=1e-5, atol=1e-6)
    assert not torch.equal(after.buffers, state.buffers)
    assert torch.equal(state.params, before[0])
    assert torch.equal(state.buffers, before[1])


def test_every_round_draws_a_cohort_of_its_own(text: Path) -> None:
    result = simulate(tiny(text, rounds=12))
    drawn = Counter(client for row in result.selection for client in row["cohort"])
    assert all(len(set(row["cohort"])) == 2 for row in result.selection)
    assert set(drawn) == {0, 1, 2, 3}
