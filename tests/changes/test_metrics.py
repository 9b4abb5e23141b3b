"""Tests that any metric of the registry, and one of the user's own, ranks layers, blocks and kinds."""

import pytest
import torch

import fedtlu_fast as ft
from fedtlu_fast import InputError


def sizes(change):
    return torch.stack([change.stats.abs_max[list(block.layers)].max() for block in change.layout.blocks])


@pytest.fixture
def pair():
    draws = torch.Generator().manual_seed(5)
    before = {f"h.{at}.w": torch.randn(5, 4, generator=draws) for at in range(4)}
    before |= {f"h.{at}.b": torch.randn(4, generator=draws) for at in range(4)}
    after = {name: own + torch.randn(own.shape, generator=draws) for name, own in before.items()}
    return before, after


def test_relative_change_is_that_of_the_weights_before(pair):
    before, after = pair
    scored = ft.score(before, after, metric="relative_change", pooling="pooled")
    for row in scored.rows("layer"):
        change, weight = (
            after[row["name"]].double() - before[row["name"]].double(),
            before[row["name"]].double(),
        )
        expected = float(change.norm() / weight.norm())
        assert row["value"] == pytest.approx(expected, rel=1e-12)
        assert row["relative_change"] == pytest.approx(expected, rel=1e-12)
    ranked = [row["value"] for row in scored.rows()]
    assert ranked == sorted(ranked, reverse=True)
    best = scored.rows()[0]
    names = [f"{best['name']}.w", f"{best['name']}.b"]
    l2 = [sum(float(t[n].double().square().sum()) for n in names) for t in (before, after)]
    assert l2[0] > 0
    change = sum(float((after[name].double() - before[name].double()).square().sum()) for name in names)
    assert best["value"] == pytest.approx((change / l2[0]) ** 0.5, rel=1e-12)
    assert str(scored).splitlines()[1].split()[1] == f"{best['value']:.4e}"


def test_one_result_has_rows_of_every_metric(pair):
    scored = ft.score(*pair)
    norms = scored.rows("layer", "l2_per_parameter")
    for row in norms:
        assert row["value"] == pytest.approx(row["l2"] / row["count"] ** 0.5, rel=1e-12)
    assert [row["value"] for row in norms] == sorted((row["value"] for row in norms), reverse=True)
    assert [row["value"] for row in scored.rows("layer")] == [row["excess"] for row in scored.rows("layer")]
    assert [row["value"] for row in scored.rows()] == [row["score"] for row in scored.rows()]


def test_a_metric_by_its_dotted_name(pair):
    scored = ft.score(*pair, metric=f"{__name__}:sizes")
    for row in scored.rows("layer"):
        assert row["value"] == row["abs_max"]
    assert scored.as_json()["metric"] == f"{__name__}:sizes"


def test_metrics_that_do_not_fit_are_one_message_before_anything_is_read(pair, tmp_path):
    for metric, message in (
        ("agreement", "needs no facts about single clients. Metrics of two states: excess, l2_per"),
        (
            "exces",
            "Did you mean excess. Expected excess, l2_per_parameter, relative_change, or pack",
        ),
        ("no.such:metric", "No module named 'no'"),
    ):
        with pytest.raises(InputError, match=message):
            ft.score(tmp_path / "gone", pair[1], metric=metric)
    with pytest.raises(InputError, match=r"by: got 'rows'.* one of layer, block, kind"):
        ft.score(*pair).rows("rows")
