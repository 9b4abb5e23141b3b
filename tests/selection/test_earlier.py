"""Choosing before clients train: by the scores of earlier rounds, and alike for all clients."""

import itertools

import numpy as np
import pytest
import torch
from support.federations import tiny, write_text

from fedtlu_fast import InputError, ParameterLayout, simulate
from fedtlu_fast.selection import ClientRoom, Evidence
from fedtlu_fast.selection.earlier import Earlier
from fedtlu_fast.selection.selector import EARLIER, LAST_SENT
from fedtlu_fast.testing import check_selector

LAYOUT = ParameterLayout.from_shapes({f"h.{at}.w": (4, 4) for at in range(5)})
EQUAL = {"frozen": "none", "always": "none", "budget": 1}


def chosen(selector, scores, sent, budget=2, rows=3, round_index=1):
    room = ClientRoom(np.ones(5, np.bool_), np.full(rows, float(budget)), np.ones(5), np.zeros(5))
    metrics = {EARLIER: np.array([scores], np.float64), LAST_SENT: np.array([sent], np.float64)}
    evidence = Evidence(LAYOUT, metrics, np.random.default_rng(round_index), rows=rows, round=round_index)
    mask = selector.choose(evidence, room)
    assert bool((mask == mask[0]).all())
    return np.flatnonzero(mask[0]).tolist()


def test_the_best_known_blocks_are_chosen_and_unknown_ones_first():
    assert chosen(Earlier(explore=0), [3, 9, 1, 8, 2], [1, 2, 3, 4, 5]) == [1, 3]
    assert chosen(Earlier(explore=0), [3, 9, np.nan, 8, 2], [1, 2, 0, 4, 5]) == [1, 2]
    assert chosen(Earlier(explore=1), [3, 9, 1, 8, 2], [7, 2, 9, 4, 1]) == [1, 4]


def test_a_share_of_the_rounds_explores():
    found = [
        chosen(Earlier(explore=0.3), [5, 4, 3, 2, 1], [9, 8, 7, 6, 5], 1, 1, index) for index in range(600)
    ]
    assert np.mean([blocks == [4] for blocks in found]) == pytest.approx(0.3, abs=0.08)
    assert {tuple(blocks) for blocks in found} == {(0,), (4,)}


def test_it_conforms_and_refuses_metrics_of_clients():
    check_selector("earlier", side="clients")
    with pytest.raises(
        InputError, match=r"metric: got 'agreement'; expected a metric that needs only the aggr"
    ):
        Earlier(metric="agreement")


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path / "a.txt")


def run(text, over=None, **settings):
    selection = {"selector": "earlier", **EQUAL, **(over or {})}
    return simulate(tiny(text, client_selection=selection, selection={"selector": "full"}, **settings))


def test_all_clients_send_one_choice_and_every_block_is_scored_before_one_is_chosen_again(text):
    found = run(text, {"explore": 0.0}, rounds=12, warmup_rounds=1)
    rows = [row for row in found.selection if not row["warmup"]]
    each = [{tuple(blocks) for blocks in row["client_blocks"]} for row in rows]
    assert all(len(own) == 1 for own in each)
    order = [own.pop()[0] for own in each]
    blocks = len(found.layout.blocks)
    assert len(set(order[:blocks])) == blocks
    assert set(order[blocks:]) <= set(order[:blocks])
    assert found.summary["bytes_up"] < 12 * 2 * 4 * found.layout.size


def test_the_choice_follows_the_scores_that_were_written_down(text):
    found = run(text, {"explore": 0.0, "metric": "excess", "pooling": "mean"}, rounds=14, warmup_rounds=1)
    names = [block.name for block in found.layout.blocks]
    known: dict[str, float] = {}
    for row in found.selection:
        if row["warmup"]:
            continue
        own = [names[block] for block in row["client_blocks"][0]]
        unknown = [name for name in names if name not in known]
        assert own == ([unknown[0]] if unknown else [max(known, key=known.get)])
        known |= {name: row["block_scores"][name] for name in own}


def test_one_draw_of_random_is_for_all_clients(text):
    settings = {"selector": "random", **EQUAL, "shared": True}
    found = simulate(tiny(text, client_selection=settings, selection={"selector": "full"}, rounds=20))
    rows = [row["client_blocks"] for row in found.selection if not row["warmup"]]
    assert all(len({tuple(own) for own in blocks}) == 1 for blocks in rows)
    assert len({tuple(blocks[0]) for blocks in rows}) > 2
    free = simulate(tiny(text, client_selection=settings | {"shared": False}, rounds=20))
    assert any(
        len({tuple(own) for own in row["client_blocks"]}) > 1 for row in free.selection if not row["warmup"]
    )


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (
            {"selector": "rgn", "shared": True},
            r"client_selection.shared: got True; expected false with selector=rgn",
        ),
        (
            {"selector": "random", "shared": True, "decides": "client"},
            r"decides: got 'client'.* with shared=true",
        ),
        (
            {"selector": "random", "shared": True, "budget": "1..2"},
            r"budget.*same number of layers .*shared=true",
        ),
    ],
)
def test_one_choice_for_all_needs_clients_that_are_alike(text, over, message):
    with pytest.raises(InputError, match=message):
        tiny(text, client_selection={**EQUAL, **over})


PRIVATE = {"noise_multiplier": 1.0, "delta": 1e-3, "clipping_norm": 0.1}


@pytest.mark.parametrize("sampler", ["uniform", "poisson"])
def test_with_noise_only_blocks_that_are_sent_change_also_without_clients(text, sampler):
    settings = {"privacy": PRIVATE, "warmup_rounds": 0, "participation": {"sampler": sampler}, "cohort": 1}
    runs = [run(text, rounds=rounds, **settings) for rounds in range(1, 6)]
    layout, trained = runs[0].layout, [row["trained"] for row in runs[-1].metrics]
    assert (0 in trained) == (sampler == "poisson")
    for at, (short, long) in enumerate(itertools.pairwise(runs), 1):
        moved = long.params - short.params
        blocks = range(len(layout.blocks))
        changed = {at for at in blocks if any(bool(moved[own].any()) for own in layout.runs({at}))}
        assert len(changed) == 1
        for sent in long.selection[at]["client_blocks"]:
            assert changed == set(sent)


def test_kill_and_resume_keep_the_scores(text, tmp_path):
    selection = {"selector": "earlier", **EQUAL}
    config = tiny(text, client_selection=selection, selection={"selector": "full"}, rounds=9)
    whole = simulate(config)
    simulate(config.model_copy(update={"rounds": 5}), tmp_path / "out")
    again = simulate(config, tmp_path / "out", resume=True)
    assert torch.equal(whole.params, again.params)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (
            {"selector": "random"},
            r"client_selection.shared: got False; expected true with differential privacy",
        ),
        (
            {"selector": "rgn"},
            r"client_selection.selector: got 'rgn'; expected earlier, or one that looks at no",
        ),
        ({"selector": "fedluar"}, r"client_selection.selector: got 'fedluar'; expected another with diff"),
    ],
)
def test_choices_by_clients_data_are_refused_with_noise(text, selection, message):
    with pytest.raises(InputError, match=message):
        tiny(text, privacy=PRIVATE, client_selection={**EQUAL, **selection})
