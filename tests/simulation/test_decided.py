"""Runs choose among named blocks, and say over which share of the parameters selection decides."""

import logging

import numpy as np
import pytest
from support.federations import tiny

from fedtlu_fast import InputError, simulate
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.experiments.experiment import Condition, run_experiment
from fedtlu_fast.report.aggregate.history import read_history
from fedtlu_fast.selection import Selector


def test_a_run_chooses_among_named_blocks_and_says_how_much_they_are(tmp_path, caplog):
    config = parse_config(
        {
            "task": "classification",
            "clients": 6,
            "cohort": 3,
            "rounds": 3,
            "warmup_rounds": 1,
            "data": {"source": "synthetic", "classes": 4, "synthetic": {"features": 6}},
            "model": {"hidden": [5, 7, 9]},
            "selection": {"keep": 1, "blocks": ["[02]"]},
            "evaluation": {"trained_clients": 0},
        }
    )
    with caplog.at_level(logging.INFO, "fedtlu_fast"):
        result = simulate(config, tmp_path / "run")
    assert list(result.summary["groups"].values()) == [["0", "2"]]
    for row in result.metrics[1:]:
        assert len({"0", "2"} & set(row["selected"])) == 1
    share = (5 * 7 + 7 * 6) / result.layout.size
    assert result.summary["selection_share"] == result.layout.grouped_share == pytest.approx(share)
    assert f"selection decides over {100 * share:.0f}% of the model's parameters only" in caplog.text
    again, history = read_history(tmp_path / "run")
    assert again.blocks == ("[02]",)
    assert history.share == share
    assert [group.blocks for group in history.groups] == [("0", "2")]


def test_a_pattern_that_fits_no_module_names_the_setting():
    with pytest.raises(InputError, match=r"selection\.blocks: got 'down\.\*'; expected a pattern"):
        simulate({"task": "image_classification", "selection": {"blocks": ["down.*"]}})


def test_a_run_says_when_the_selector_has_nothing_to_choose(text, caplog):
    def warned(**selection):
        caplog.clear()
        simulate(tiny(text, rounds=1, warmup_rounds=0, selection=selection))
        return "has nothing to choose" in caplog.text

    assert warned(selector="fedtlu", keep=1.0)
    assert "since selection.keep=1.0 keeps every block of transformer.h.* (3 blocks)" in caplog.text
    assert "decides over" not in caplog.text, "that is said already"
    assert not warned(selector="fedtlu", keep=1)
    assert not warned(selector="full", keep=2)


def test_shares_of_both_sides_and_none_where_everything_is_taken(text, caplog):
    full = simulate(tiny(text, rounds=1, warmup_rounds=0, selection={"selector": "full"}))
    assert "selection_share" not in full.summary
    assert "decides over" not in caplog.text
    chosen = {"selector": "top", "budget": 1}
    both = simulate(tiny(text, rounds=1, warmup_rounds=0, client_selection=chosen)).summary
    by_name = dict(zip((own.name for own in full.layout.blocks), full.layout.block_sizes(), strict=True))
    opened = sum(by_name[name] for name in both["open_blocks"])
    assert both["client_selection_share"] == opened / full.layout.size
    assert both["selection_share"] == full.layout.grouped_share


def test_a_group_that_is_kept_whole_leaves_no_choice_and_does_not_count(tmp_path):
    tree = {
        "task": "classification",
        "clients": 6,
        "cohort": 3,
        "rounds": 2,
        "warmup_rounds": 0,
        "data": {"source": "synthetic", "classes": 4, "synthetic": {"features": 6}},
        "model": {"hidden": [5, 5, 5, 5]},
        "evaluation": {"trained_clients": 0},
        "selection": {"granularity": "tensor", "keep": {"*.weight": 3, "*.bias": 1}},
    }
    result = simulate(tree, tmp_path / "run")
    assert {name: len(blocks) for name, blocks in result.summary["groups"].items()} == {
        "*.weight": 3,
        "*.bias": 3,
    }
    share = 3 * 5 / result.layout.size  # the biases; the three 5 x 5 matrices are all kept
    assert result.summary["selection_share"] == pytest.approx(share)
    assert read_history(tmp_path / "run")[1].share == pytest.approx(share)

    class Fewer(Selector):
        """A selector that does not rank may choose fewer blocks than it may keep."""

        def choose(self, evidence, room):
            return np.zeros((1, len(evidence.layout.blocks)), np.bool_)

    other = simulate({**tree, "selection": {**tree["selection"], "selector": Fewer()}})
    assert other.summary["selection_share"] == other.layout.grouped_share > share


def test_an_experiment_says_the_shares_once(text, tmp_path, caplog, in_process):
    grid = [Condition(name, "clean", tiny(text, rounds=2, warmup_rounds=1)) for name in ("fedavg", "fedprox")]
    with caplog.at_level(logging.INFO, "fedtlu_fast"):
        run_experiment(grid, ("fedtlu", "random", "full"), (0, 1), tmp_path / "out", jobs=1)
    assert caplog.text.count("selection decides over") == 1
