"""Eq. 1, its values for degenerate layers, and block scores."""

import doctest
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.model_zoo import gpt2
from support.sampling import examples

from fedtlu_fast import InputError, ParameterLayout, layer_stats, score_blocks, score_layers
from fedtlu_fast.layout import Block
from fedtlu_fast.scoring import scores

NAN, INF = math.nan, math.inf

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # the interpreter's NumPy


def literal(layer, ddof):
    """Computes Eq. 1 as the paper prints it."""
    values = layer.double().reshape(-1)
    return (values.norm() / (math.sqrt(values.numel()) * values.std(correction=ddof))).item()


def excess_of(layer):
    values = layer.double().reshape(-1)
    return (values.mean() / values.std(correction=0)).square().item()


def scores_of(*layers, ddof=1):
    return score_layers(layer_stats([torch.as_tensor(layer) for layer in layers]), ddof)


def blocks_of(shapes, delta, pooling):
    layout = ParameterLayout.from_shapes(shapes)
    stats = layer_stats(delta, layout)
    return score_blocks(score_layers(stats), layout, stats, pooling)


def varied(shape, scale, shift, dtype, generator):
    """Draws numbers that are not all equal; in bfloat16, two draws of 5 ± 1 are equal with chance 1%."""
    while True:
        layer = (torch.randn(shape, generator=generator) * scale + shift).to(dtype)
        if layer.unique().numel() > 1:
            return layer


# --- layers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_score_is_eq_1_literally(backend, generator, ddof, dtype):
    layers = [
        varied(shape, scale, shift, dtype, generator)
        for shape, scale, shift in (
            ((50, 20), 1e-3, 1e-3),
            ((17,), 2.0, -1.0),
            ((2,), 1.0, 5.0),
            ((3, 1), 1, 9),
        )
    ]
    got = score_layers(layer_stats(layers, backend=backend), ddof)
    assert got.score.tolist() == pytest.approx([literal(layer, ddof) for layer in layers], rel=1e-12)
    assert got.ddof == ddof
    assert not got.degenerate.any()
    assert len(got) == len(layers)


def test_score_by_hand():
    """[1, 3] has mean 2, population std 1, sample std sqrt 2 and norm sqrt 10."""
    assert scores_of([1.0, 3.0], ddof=0).score.item() == pytest.approx(math.sqrt(5), rel=1e-15)
    assert scores_of([1.0, 3.0], ddof=1).score.item() == pytest.approx(math.sqrt(5 / 2), rel=1e-15)
    assert scores_of([1.0, 3.0]).excess.item() == 4.0


def test_default_ddof_is_torch_stds():
    values = torch.tensor([1.0, 2.0, 4.0])
    expected = (values.norm() / (math.sqrt(3) * values.std())).item()
    assert score_layers(layer_stats([values])).score.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("ddof", [0, 1])
def test_excess_is_the_score_in_full_precision(backend, generator, ddof):
    """With mean/std = 1e-6 the score is 1 + 5e-13, and the excess keeps its digits."""
    half = torch.randn(5000, generator=generator, dtype=torch.float64)
    layer = torch.cat([half, -half]) + 1e-6
    got = score_layers(layer_stats([layer], backend=backend), ddof)
    exact = math.fsum(layer.tolist()) / 1e4
    assert math.sqrt(got.excess.item()) == pytest.approx(exact / layer.std(correction=0).item(), abs=1e-8)
    assert got.score.item() == pytest.approx(
        math.sqrt((1e4 - ddof) / 1e4 * (1 + got.excess.item())), rel=1e-15
    )


@examples(100)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_score_of_anything_finite_is_finite_and_at_least_one(values):
    got = scores_of(torch.tensor(values, dtype=torch.float64), ddof=0)
    assert 1 <= got.score.item() < INF
    assert 0 <= got.excess.item() < INF
    assert not got.degenerate.item() or got.excess.item() == 0


@examples(100)
@given(
    st.lists(st.integers(-1000, 1000), min_size=3, max_size=40).filter(lambda v: len(set(v)) > 1),
    st.integers(-300, 300),
)
def test_score_does_not_change_with_scale_or_sign(values, exponent):
    delta = torch.tensor(values, dtype=torch.float64)
    plain, scaled, negated = scores_of(delta, delta * 2.0**exponent, -delta).excess.tolist()
    assert plain == pytest.approx(excess_of(delta), rel=1e-10)
    assert scaled == pytest.approx(plain, rel=1e-13)
    assert negated == plain


def test_score_does_not_depend_on_the_order_of_elements(generator):
    delta = torch.randn(999, generator=generator) + 0.3
    shuffled = delta[torch.randperm(999, generator=generator)]
    first, second = scores_of(delta, shuffled).excess.tolist()
    assert first == pytest.approx(second, rel=1e-12)


DEGENERATE = {
    "empty": torch.empty(0),
    "one element": torch.tensor([5.0]),
    "constant": torch.full((99,), 0.1),
    "constant in float64": torch.full((99,), 1 / 3, dtype=torch.float64),
    "zero": torch.zeros(9),
    "zeros of both signs": torch.tensor([0.0, -0.0, 0.0]),
    "NaN": torch.tensor([1.0, NAN, 2.0]),
    "Inf": torch.tensor([1.0, INF, 2.0]),
    "both infinities": torch.tensor([INF, -INF]),
    "squares beyond float64": torch.tensor([1e200, 2e200, 4e200], dtype=torch.float64),
    "squares beyond float64 around zero": torch.tensor([1e200, -1e200], dtype=torch.float64),
    "a sum beyond float64": torch.tensor([1.7e308, 1.6e308, 1.5e308], dtype=torch.float64),
}


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_layers_are_finite_and_never_win(backend, name, ddof):
    ordinary = torch.tensor([1.0, -1.0, 2.0, -2.0])  # mean 0 gives the smallest value of Eq. 1
    got = score_layers(layer_stats([DEGENERATE[name], ordinary], backend=backend), ddof)
    assert got.degenerate.tolist() == [True, False]
    assert got.excess[0] == 0
    assert torch.isfinite(got.score).all()
    assert got.score[0] <= 1
    for pooling in ("mean", "pooled"):
        # The degenerate layer is in a block of its own, beside a block with the smallest possible score.
        layout = ParameterLayout.from_shapes(
            {"h.0.w": tuple(DEGENERATE[name].shape), "h.1.w": tuple(ordinary.shape)}
        )
        stats = layer_stats([DEGENERATE[name], ordinary], backend=backend)
        blocks = score_blocks(score_layers(stats, ddof), layout, stats, pooling)
        assert blocks[0] == -1
        assert blocks[1] == 0


@pytest.mark.parametrize("ddof", [2, -1, 0.5, None])
def test_other_ddof_are_refused(ddof):
    with pytest.raises(InputError, match=r"ddof: got .*0 \(population\) or 1"):
        scores_of([1.0, 2.0], ddof=ddof)


# --- blocks --------------------------------------------------------------------------------------

TWO = {"h.0.w": (3,), "h.0.b": (2,), "h.1.w": (3,), "h.1.b": (2,), "head": (4,)}


def test_mean_pooling_is_the_mean_of_the_layers_scores_over_one():
    delta = torch.tensor([1.0, 2, 4, 5, 7, -1, 0, 1, 3, 3.5, 1, 2, 3, 4], dtype=torch.float64)
    got = blocks_of(TWO, delta, "mean")
    parts = [literal(part, 0) - 1 for part in torch.split(delta, [3, 2, 3, 2, 4])]
    expected = [(parts[0] + parts[1]) / 2, (parts[2] + parts[3]) / 2, parts[4]]
    assert got.dtype == torch.float64
    assert got.tolist() == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_mean_pooling_keeps_digits_that_a_sum_of_scores_loses():
    base = torch.tensor([1.0, -1.0] * 50, dtype=torch.float64)
    delta = torch.cat([base + 1.1e-9, base + 1e-9])
    first, second = blocks_of({"h.0.w": (100,), "h.1.w": (100,)}, delta, "mean").tolist()
    assert first / second == pytest.approx(1.21, rel=1e-6)


def test_pooled_is_the_excess_of_the_block_as_one_layer(generator):
    layout = ParameterLayout.from_module(gpt2())
    delta = torch.randn(layout.size, generator=generator) + 0.05
    stats = layer_stats(delta, layout)
    got = score_blocks(score_layers(stats), layout, stats, "pooled")
    views = list(layout.views(delta).values())
    for index, block in enumerate(layout.blocks):
        whole = torch.cat([views[layer].reshape(-1) for layer in block.layers])
        assert got[index].item() == pytest.approx(excess_of(whole), rel=1e-9)


@examples(60)
@given(
    st.lists(st.lists(st.integers(-100, 100), max_size=6), min_size=1, max_size=5),
    st.floats(-1e3, 1e3),
)
def test_pooled_equals_concatenated_for_any_cut(parts, shift):
    layers = [torch.tensor(part, dtype=torch.float64) + shift for part in parts]
    whole = torch.cat(layers)
    shapes = {f"w{index}": (len(layer),) for index, layer in enumerate(layers)}
    # One block of all layers, whatever blocks discovery would find.
    layout = replace(ParameterLayout.from_shapes(shapes), blocks=(Block("all", tuple(range(len(layers)))),))
    stats = layer_stats(layers)
    got = score_blocks(score_layers(stats), layout, stats, "pooled").item()
    alone = scores_of(whole)
    if alone.degenerate.item():
        assert got == -1
    else:
        assert got == pytest.approx(alone.excess.item(), rel=1e-9, abs=1e-18)


@pytest.mark.parametrize("value", [0.1, 1 / 3, -7e-9, 0.0])
def test_a_block_of_equal_constants_does_not_win_by_rounding(value):
    """The mean of means of 0.1 is not exactly 0.1, and would give an excess of 1e31 that wins every round."""
    delta = torch.full((14,), value, dtype=torch.float64)
    delta[5:10] = torch.tensor([1.0, -1, 0.5, 2, 3])
    delta[10:] = 0
    got = blocks_of({"h.0.w": (2,), "h.0.b": (3,), "h.1.w": (2,), "h.1.b": (3,), "n": (4,)}, delta, "pooled")
    assert got[0] == -1
    assert got[1] > 0


def test_different_constants_are_not_constant_when_pooled():
    delta = torch.tensor([1.0, 1, 3, 3], dtype=torch.float64)
    shapes = {"h.0.w": (2,), "h.0.b": (2,), "h.1.w": (2,), "h.1.b": (2,)}
    both = torch.cat([delta, delta])
    assert blocks_of(shapes, both, "pooled").tolist() == [4.0, 4.0]
    assert blocks_of(shapes, both, "mean").tolist() == [-1.0, -1.0]


def test_one_degenerate_layer_counts_as_the_least_score_in_its_block():
    delta = torch.tensor([1.0, 2, 4, 5, 5, 1, 2, 4, 5, 6, 0, 0, 0, 0], dtype=torch.float64)
    first, second, _ = blocks_of(TWO, delta, "mean").tolist()
    assert 0 < first < second
    assert first == pytest.approx((literal(delta[:3], 0) - 1) / 2, rel=1e-12)


@pytest.mark.parametrize("pooling", ["mean", "pooled"])
def test_a_block_that_cannot_be_applied_takes_no_place(pooling):
    """A block with NaN in its bias could not be applied, however well its weight scores."""
    delta = torch.tensor([100.0, 101, 102, NAN, 0, 1, -1, 0, 1, -1, 1, 2, 3, 4])
    got = blocks_of(TWO, delta, pooling)
    assert got[0] == -1
    assert got[1] == 0


def test_unknown_pooling_is_refused():
    with pytest.raises(InputError, match=r"pooling: got 'sum'; expected one of mean, pooled"):
        blocks_of(TWO, torch.zeros(14), "sum")


def test_examples_in_the_docstrings():
    result = doctest.testmod(scores)
    assert result.attempted
    assert not result.failed
