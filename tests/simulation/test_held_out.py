"""Tests the held-out samples of the server: what the test loses, losses, the gradient, and the records."""

import numpy as np
import pytest
import torch
from support.federations import left, rows, tiny, write_text

from fedtlu_fast import InputError, simulate
from fedtlu_fast.aggregation import ServerOptimizer
from fedtlu_fast.build.run import founding
from fedtlu_fast.build.server import apart
from fedtlu_fast.data.population import count, whole
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.parts import part
from fedtlu_fast.simulation.apply import apply
from fedtlu_fast.simulation.held_out import HeldOutSample

HELD = {"held_out": 7, "benefit": True, "trained_clients": 0}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "text.txt")


@pytest.fixture(scope="module")
def recorded(text, tmp_path_factory):
    out = tmp_path_factory.mktemp("recorded") / "run"
    simulate(tiny(text, evaluation=HELD), out=out)
    return out


def test_the_samples_are_spread_over_the_test_which_does_not_count_them():
    test = (torch.arange(10),)
    own, held = apart(test, 3)
    assert whole(held)[0].tolist() == [0, 3, 6]
    assert whole(own)[0].tolist() == [1, 2, 4, 5, 7, 8, 9]
    assert apart(test, 0) == (test, None)
    with pytest.raises(InputError, match="fewer than the 10 samples"):
        apart(test, 10)


def test_each_loss_is_that_of_the_model_with_these_blocks_applied(text):
    with founding(tiny(text, evaluation=HELD)) as (_, founded):
        server, state = founded.server, founded.state
        layout: ParameterLayout = server.layout
        change = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, layout.size)).float()
        bad = layout.groups[0].blocks[2]
        change[layout.runs([bad])[0].start] = torch.nan
        both = state.buffers, state.buffers

        def step(selection):
            given = server.layout, server.optimizer, {}, server.server_lr, server.backend
            return apply(state.params, change, selection, *given)

        held = HeldOutSample(server, server.evaluation.held_out, state.params, both, change, step)
        first = layout.groups[0].blocks[0]
        for blocks in ((), (first,), (first, bad)):
            found = held.loss(blocks)
            moved = state.params.clone()
            for run in layout.runs(sorted({*layout.unique, *blocks} - {bad})):
                moved[run] += change[run]
            server.trainer.load_(moved, state.buffers)
            assert found == float(server.trainer.task.evaluate(server.evaluation.held_out, 64).loss)
        with pytest.raises(InputError, match="in a group"):
            held.loss([layout.unique[0]])
        for block in (-1, len(layout.blocks)):
            with pytest.raises(InputError, match=f"blocks: got {block}; expected indices of blocks, from 0"):
                held.loss((block,))


def test_the_gradient_is_the_slope_of_the_loss(text):
    with founding(tiny(text, evaluation=HELD)) as (_, founded):
        server, state = founded.server, founded.state
        both, sample = (state.buffers, state.buffers), server.evaluation.held_out
        held = HeldOutSample(server, sample, state.params, both, torch.zeros_like(state.params), None)
        gradient = held.gradient().double()
        held.gradient().fill_(torch.nan)
        assert torch.equal(held.gradient().double(), gradient), "who writes into it has a copy"

        def loss(params):
            server.trainer.load_(params.float(), state.buffers)
            return float(server.trainer.task.evaluate(sample, 3).loss)

        step = 1e-3 * gradient / gradient.norm()
        slope = (loss(state.params + step) - loss(state.params - step)) / (2 * float(step.norm()))
        assert slope == pytest.approx(float(gradient.norm()), rel=1e-2)
        small = server.trainer.test_gradient(state.params, state.buffers, sample, 2).double()
        assert torch.allclose(small, gradient, atol=1e-6)


def test_every_round_records_the_blocks_of_the_groups(recorded):
    found = rows(recorded / "selection.jsonl")
    assert [row["warmup"] for row in found] == [True, True, False, False, False]
    for row in found:
        own = row["benefit"]
        assert set(own["alone"]) == {f"transformer.h.{index}" for index in range(3)}
        assert own["scores"]["excess"] == {block: row["block_scores"][block] for block in own["alone"]}, (
            "the run ranks by Eq. 1, and so records the same values"
        )
        assert {"excess, pooled", "excess, matrices", "excess, vectors"} <= set(own["scores"])


def test_recording_changes_nothing_but_the_record(recorded, text, tmp_path):
    simulate(tiny(text, evaluation=HELD | {"benefit": False}), out=tmp_path / "run")
    plain, other = left(tmp_path / "run"), left(recorded)
    assert plain["summary"] == other["summary"]
    assert plain["metrics"] == other["metrics"]
    for row in other["selection"]:
        del row["benefit"]
    assert plain["selection"] == other["selection"]


def test_the_oracle_lowers_the_held_out_loss_most(text, tmp_path):
    given = tiny(text, evaluation=HELD, selection={"selector": "oracle", "keep": 1})
    simulate(given, out=tmp_path / "run")
    for row in rows(tmp_path / "run" / "selection.jsonl"):
        if not row["warmup"]:
            alone = row["benefit"]["alone"]
            assert min(alone, key=alone.__getitem__) in row["selected"]


def test_processes_give_the_same_bits(recorded, text, tmp_path):
    given = tiny(text, evaluation=HELD, execution={"executor": "processes", "workers": 2})
    simulate(given, out=tmp_path / "run")
    assert left(tmp_path / "run") == left(recorded)


@pytest.mark.parametrize(
    ("over", "field"),
    [
        ({"evaluation": {"benefit": True}}, "evaluation.benefit"),
        ({"selection": {"selector": "oracle"}}, "selection.selector"),
    ],
)
def test_who_needs_samples_and_has_none_is_told_the_setting(text, over, field):
    with pytest.raises(InputError, match=r"evaluation\.held_out=256") as error:
        tiny(text, **over)
    assert error.value.field == field


def test_the_sample_is_smaller_than_the_test(text):
    given = tiny(text, evaluation={"held_out": 10_000})
    with pytest.raises(InputError, match=r"evaluation\.held_out"), founding(given) as (_, founded):
        count(founded.server.evaluation.test)


@part
class Noisy(ServerOptimizer):
    """Adds noise, with draws from the global generator."""

    def step(self, change, state, offsets, mask):
        return change + 0.01 * torch.randn_like(change), state


def test_losses_are_those_of_the_step_that_the_round_makes_also_of_an_optimizer_that_draws(text):
    given = {"evaluation": HELD, "aggregation": {"server_optimizer": Noisy()}}
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append([row["benefit"] for row in simulate(tiny(text, **given)).selection])
    assert found[0] == found[1]
