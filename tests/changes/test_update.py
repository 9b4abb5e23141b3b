"""Tests score, choose and apply_ on modules and state dicts."""

import copy
import doctest
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import fedtlu_fast as ft
from fedtlu_fast.changes import scored, update
from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.selection import FedTLU, Ranking, Selector


class Net(nn.Module):
    """Has like blocks, BatchNorm, a frozen layer and a tied head."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.h = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(3))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight


@pytest.fixture
def pair(generator):
    before = Net()
    after = copy.deepcopy(before)
    with torch.no_grad():
        for at, tensor in enumerate([*after.parameters(), *after.buffers()]):
            if tensor.is_floating_point() and (at >= 14 or tensor.requires_grad):
                tensor += torch.randn(tensor.shape, generator=generator) + at
    return before, after


def test_modules_state_dicts_and_files_give_the_same_scores(pair, tmp_path):
    before, after = pair
    expected = ft.score(before, after)
    assert expected.layout.names == ParameterLayout.from_module(before).names
    assert "head.weight" not in expected.layout.names
    for one, two in ((before, after.state_dict()), (before.state_dict(), after)):
        found = ft.score(one, two)
        assert torch.equal(found.block_scores, expected.block_scores)
        assert found.layout == expected.layout
    files = []
    for name, module in zip(("before", "after"), pair, strict=True):
        files.append(tmp_path / f"{name}.safetensors")
        trainable = {name: own.detach() for name, own in module.named_parameters() if own.requires_grad}
        save_file(trainable, files[-1])
    rows = {row["name"]: row for row in ft.score(str(files[0]), files[1]).blocks}
    for row in expected.blocks:
        assert rows[row["name"]]["rank"] == row["rank"]
        assert rows[row["name"]]["score"] == pytest.approx(row["score"], rel=1e-12)


def test_of_state_dicts_all_tensors_count_that_are_no_buffers(pair):
    found = ft.score(*(own.state_dict() for own in pair))
    assert "frozen.weight" in found.layout.names
    assert {"h.0.1.running_mean", "h.2.1.running_var"} <= set(found.buffers)
    assert "h.1.1.num_batches_tracked" in found.skipped
    assert found.tied == ("head.weight",)


def test_rows_are_ranked_best_first(pair):
    found = ft.score(*pair)
    ranked = [row for row in found.blocks if row["rank"]]
    assert [row["rank"] for row in ranked] == [1, 2, 3]
    assert [row["score"] for row in ranked] == sorted((row["score"] for row in ranked), reverse=True)
    excess = [row["excess"] for row in found.layers if not row["degenerate"]]
    assert excess == sorted(excess, reverse=True)
    assert str(found).splitlines()[1].split()[0] == ranked[0]["name"]


def test_the_best_blocks_are_chosen_and_those_without_a_like(pair):
    scores = ft.score(*pair)
    best = [row["name"] for row in scores.blocks if row["rank"] in (1, 2)]
    chosen = ft.choose(scores, keep=2)
    assert set(chosen.names) == {"embed", *best}
    assert set(ft.choose(scores, keep=2, unique="never").names) == set(best)
    layers = [name for name in scores.layout.names if name.startswith(tuple(chosen.names))]
    assert chosen.layers == tuple(layers)
    assert set(ft.choose(scores, selector="last").names) == {"embed", "h.2"}
    assert len(ft.choose(scores, selector="full").names) == 4
    draws = {
        ft.choose(scores, selector="random", seed=seed, round=index).names
        for seed in range(3)
        for index in (1, 2)
    }
    assert len(draws) > 1
    assert len({ft.choose(scores, selector="random", seed=4, round=5).names for _ in range(3)}) == 1


def test_a_selector_that_draws_needs_the_round(pair):
    class Drawn(Selector):
        def choose(self, evidence, room):
            return room.best(evidence.generator.random((1, 4)))

    scores = ft.score(*pair)
    for selector in ("random", Drawn()):
        with pytest.raises(InputError, match="round: got None; expected the number of the round, from 1"):
            ft.choose(scores, selector=selector)
        ft.choose(scores, selector=selector, round=2)


def test_a_selector_sees_what_was_chosen_in_the_round_before(pair):
    class Other(Ranking):
        """Prefers blocks that were left out in the round before."""

        def utility(self, evidence):
            return np.zeros((1, 4)) if evidence.last_choice is None else -1.0 * evidence.last_choice[None]

    scores = ft.score(*pair)
    first = ft.choose(scores, keep=2, selector=Other())
    second = ft.choose(scores, keep=2, selector=Other(), last_choice=first)
    names = {"h.0", "h.1", "h.2"}
    assert names - set(first.names) < set(second.names)

    def left_out(change):
        assert change.last_choice.tolist() == first.chosen(scores.layout).tolist()
        return [1.0] * 4

    ft.choose(scores, selector=left_out, last_choice=first)
    other = ft.score(*pair, granularity="tensor")
    with pytest.raises(InputError, match=r"last_choice: got '.*'; expected blocks of these scores: embed"):
        ft.choose(scores, last_choice=ft.choose(other))
    with pytest.raises(
        InputError, match=r"last_choice: got .*; expected what choose gave in the round before"
    ):
        ft.choose(scores, last_choice=["h.1"])


def test_errors_of_choose_name_its_arguments(pair):
    with pytest.raises(InputError, match=r"^keep: got 0; expected 1 or more"):
        ft.choose(ft.score(*pair), keep=0)


def test_a_choice_shows_names_of_blocks(pair):
    chosen = ft.choose(ft.score(*pair), keep=1, unique="never")
    assert repr(chosen) == f"Selection of 1 block, {chosen.parameters:,} parameters: {chosen.names[0]}"


def test_a_selector_of_the_users_own(pair):
    class Middle(Selector):
        needs = ("excess", "l2_per_parameter")

        def choose(self, evidence, room):
            assert {own.shape for own in evidence.metrics.values()} == {(1, 4)}
            assert evidence.metrics.keys() == set(self.needs)
            return np.array([[block.name == "h.1" for block in evidence.layout.blocks]])

    class Agreeing(Middle):
        needs = ("agreement",)

    scores = ft.score(*pair)
    assert ft.choose(scores, selector=Middle(), unique="never").names == ("h.1",)
    with pytest.raises(InputError, match="no facts about single clients, but this one needs agreement"):
        ft.choose(scores, selector=Agreeing())
    relative = scores.rows(metric="relative_change")
    best = next(row["name"] for row in relative if row["rank"] == 1)
    assert ft.choose(scores, selector=FedTLU("relative_change"), unique="never").names == (best,)
    with pytest.raises(InputError, match="parameters before it"):
        ft.choose(replace(scores, weights=None), selector=FedTLU("relative_change"))
    with pytest.raises(InputError, match="selector: got 'int'; expected a name, a function"):
        ft.choose(scores, selector=3)


def test_a_score_of_the_users_own(pair):
    scores = ft.score(*pair)

    def farthest(change):
        return [change.stats.l2[list(block.layers)].max() for block in change.layout.blocks]

    found = ft.choose(scores, selector=farthest, unique="never").names
    sizes = {block.name: max(scores.stats.l2[list(block.layers)]) for block in scores.layout.blocks}
    assert found == (max([name for name in sizes if name.startswith("h.")], key=sizes.get),)


def test_blocks_with_nan_are_never_chosen(pair):
    before, after = pair
    with torch.no_grad():
        after.h[1][0].weight[0, 0] = torch.nan
    assert "h.1" not in ft.choose(ft.score(before, after), keep=3).names


def test_only_the_chosen_blocks_change(pair):
    before, after = pair
    scores = ft.score(before, after)
    chosen = ft.choose(scores, keep=1)
    news = dict(after.named_parameters())
    change = {name: news[name].detach() - own.detach() for name, own in before.named_parameters()}
    for target in (copy.deepcopy(before), copy.deepcopy(before).state_dict()):
        ft.apply_(target, change, chosen, lr=0.5)
        held = dict(target.named_parameters()) if isinstance(target, nn.Module) else target
        for name, own in before.named_parameters():
            expected = own + 0.5 * change[name] if name in chosen.layers else own
            assert torch.equal(held[name], expected), name


def test_a_change_that_does_not_fit_changes_nothing(pair):
    before, after = pair
    chosen = ft.choose(ft.score(before, after))
    change = {name: torch.ones_like(own) for name, own in before.named_parameters()}
    last = chosen.layers[-1]
    for wrong, told in (
        ({name: own for name, own in change.items() if name != last}, "change.*no tensor"),
        ({**change, last: torch.ones(9)}, r"shape \(4,\)"),
    ):
        state = {name: own.clone() for name, own in before.state_dict().items()}
        with pytest.raises(InputError, match=told):
            ft.apply_(before, wrong, chosen)
        assert all(torch.equal(own, state[name]) for name, own in before.state_dict().items())


@pytest.mark.parametrize("model", [3, [torch.ones(2)], {"w": 1.0}, {1: torch.ones(2)}])
def test_what_is_no_model_is_refused(model, pair):
    with pytest.raises(InputError, match="AFTER"):
        ft.score(pair[0], model)


def test_examples_in_the_docstrings():
    for module in (scored, update):
        result = doctest.testmod(module, extraglobs={"torch": torch})
        assert result.attempted
        assert not result.failed
