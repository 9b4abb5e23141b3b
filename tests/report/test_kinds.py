"""What decides a block's score: kinds of layers, and their shares of its variance."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.federations import tiny
from support.model_zoo import gpt2
from torch import nn

from fedtlu_fast import ParameterLayout, simulate
from fedtlu_fast.report.aggregate.kinds import kind_shares, kinds_of


def kinds(model):
    layout = ParameterLayout.from_module(model, "tensor")
    return dict(zip(layout.names, kinds_of(layout), strict=True))


def test_kinds_of_a_gpt2():
    found = kinds(gpt2())
    assert found["transformer.h.0.attn.c_attn.weight"] == "matrix"
    assert found["transformer.h.0.attn.c_attn.bias"] == "bias"
    assert found["transformer.h.1.ln_2.weight"] == "norm weight"
    assert found["transformer.ln_f.bias"] == "norm bias"
    assert found["transformer.wte.weight"] == "matrix"
    assert "other vector" not in found.values()


class Scaled(nn.Module):
    """A vector of its own, outside of any norm."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))
        self.inner = nn.Linear(3, 3)


def test_kinds_of_other_layers():
    assert kinds(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.RMSNorm(4))) == {
        "0.weight": "matrix",
        "0.bias": "bias",
        "1.weight": "norm weight",
        "1.bias": "norm bias",
        "2.weight": "norm weight",
    }
    assert set(kinds(nn.LSTM(3, 4)).values()) == {"matrix", "bias"}
    assert kinds(nn.MultiheadAttention(4, 2))["in_proj_bias"] == "bias"
    assert kinds(Scaled())["gain"] == "other vector"


LAYOUT = ParameterLayout.from_shapes(
    {
        f"h.{block}.{name}": shape
        for block in range(3)
        for name, shape in {"fc.weight": (4, 2), "fc.bias": (4,), "norm.weight": (4,)}.items()
    }
)


def row(index, values, selected=("h.0",), scores=None):
    """A row whose block scores are the means of `values` [3, 3]: blocks, then weight, bias, norm."""
    values = np.asarray(values, float)
    names = [f"h.{block}" for block in range(3)]
    means = values.mean(axis=1).tolist() if scores is None else scores
    layers = dict(zip(LAYOUT.names, ({"value": value} for value in values.ravel()), strict=True))
    return {
        "round": index,
        "warmup": False,
        "selected": list(selected),
        "block_scores": dict(zip(names, means, strict=True)),
        "layers": layers,
    }


def shares(*rows):
    return {row.kind: row for row in kind_shares(rows, LAYOUT, "agreement")}


def test_the_kind_that_differs_between_blocks_has_the_whole_share():
    found = shares(row(1, [[5, 1, 1], [5, 1, 2], [5, 1, 4]]))
    assert list(found) == ["matrix", "bias", "norm weight"]
    assert [found[kind].variance.mean for kind in found] == pytest.approx([0, 0, 1])
    assert found["norm weight"].tau.mean == 1
    assert found["matrix"].tau.mean is None, "all blocks tie: there is no ranking"
    assert found["norm weight"].overlap.mean == 1
    assert found["matrix"].overlap.mean == 0, "ties go to the first block, the score to the last"


def test_shares_are_covariances_and_add_up():
    draws = np.random.default_rng(3)
    values = draws.normal(size=(4, 3, 3))
    found = shares(*(row(index, value) for index, value in enumerate(values, start=1)))
    score = values.mean(axis=2)
    for place, kind in enumerate(("matrix", "bias", "norm weight")):
        each = [
            np.cov(part[:, place] / 3, whole)[0, 1] / np.var(whole, ddof=1)
            for part, whole in zip(values, score, strict=True)
        ]
        assert found[kind].variance.mean == pytest.approx(np.mean(each))
        assert found[kind].variance.std == pytest.approx(np.std(each, ddof=1))
    assert sum(row.variance.mean for row in found.values()) == pytest.approx(1)
    assert [found[kind].parameters for kind in found] == pytest.approx([0.5, 0.25, 0.25])
    assert {row.layers for row in found.values()} == {3}


def test_a_kind_that_works_against_the_ranking_has_a_negative_share():
    found = shares(row(1, [[3, 0, 1], [2, 0, 4], [1, 0, 9]], selected=["h.2"]))
    assert found["matrix"].variance.mean < 0
    assert found["matrix"].tau.mean == -1
    assert found["matrix"].overlap.mean == 0
    assert found["norm weight"].overlap.mean == 1


def test_tau_and_overlap_are_with_the_ranking_that_was():
    """The pooled score is no mean of layers: here it ranks the other way round."""
    found = shares(row(1, [[3, 0, 0], [2, 0, 0], [1, 0, 0]], scores=[1, 2, 3]))
    assert found["matrix"].variance.mean == pytest.approx(1)
    assert found["matrix"].tau.mean == -1
    assert found["matrix"].overlap.mean == 0


def test_blocks_that_score_the_same_have_no_shares():
    assert shares(row(1, np.ones((3, 3))))["matrix"].variance.count == 0


def test_warmup_and_groups_of_one_kind_have_no_rows():
    assert kind_shares([{**row(1, np.eye(3)), "warmup": True}], LAYOUT, "agreement") == []
    single = ParameterLayout.from_shapes({x.name: x.shape for x in LAYOUT.layers}, "tensor")
    one = row(1, np.eye(3))
    one["block_scores"] = dict.fromkeys(single.names, 1.0)
    assert len(single.groups) == 3
    assert kind_shares([one], single, "agreement") == []


@pytest.mark.parametrize("metric", ["excess", "relative_change"])
def test_parts_of_a_real_run_add_up_to_its_block_scores(text: Path, metric: str):
    result = simulate(tiny(text, rounds=3, warmup_rounds=1, selection={"metric": metric}))
    found = kind_shares(result.selection, result.layout, metric)
    assert [x.kind for x in found] == ["matrix", "bias", "norm weight", "norm bias"]
    assert sum(x.variance.mean or 0 for x in found) == pytest.approx(1)
    last = result.selection[-1]
    for block in result.layout.blocks:
        own = [last["layers"][result.layout.names[layer]] for layer in block.layers]
        values = [x["score"] if metric == "excess" else x["value"] for x in own]
        if metric == "excess":  # score - 1 with ddof 0, whose digits the excess has
            values = [x["excess"] / (1 + np.sqrt(1 + x["excess"])) for x in own]
        assert last["block_scores"][block.name] == pytest.approx(np.mean(values), rel=1e-12)
