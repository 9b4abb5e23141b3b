"""The metrics other than Eq. 1, compared with their formulas on the numbers themselves."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast import InputError, ParameterLayout, aggregate, layer_stats, score_blocks, score_layers
from fedtlu_fast.scoring.block_metrics import Change, measure
from fedtlu_fast.scoring.metrics.excess import excess
from fedtlu_fast.scoring.metrics.ratios import ratios
from fedtlu_fast.scoring.units import mean_client_norms, root_counts, scored_layout, unit_norms

NAN, INF = float("nan"), float("inf")
SHAPES = {"h.0.w": (2, 3), "h.0.b": (3,), "h.1.w": (2, 3), "h.1.b": (3,), "head": (4,)}
LAYOUT = ParameterLayout.from_shapes(SHAPES)
SIZE, POOLINGS = LAYOUT.size, ("mean", "pooled")
RATIOS = ("l2_per_parameter", "relative_change", "agreement")


def slices():
    """Returns the slices of layers and blocks in the flat vector; blocks here are consecutive layers."""
    layers = [slice(x.offset, x.offset + x.numel) for x in LAYOUT.layers]
    blocks = [slice(layers[b.layers[0]].start, layers[b.layers[-1]].stop) for b in LAYOUT.blocks]
    return layers, blocks


def scale_of(metric, params, clients, weights, backend="auto"):
    """Computes the scale in the same way as a round."""
    if metric == "l2_per_parameter":
        return root_counts(LAYOUT)
    if metric == "relative_change":
        return unit_norms(layer_stats(params, LAYOUT, backend=backend), LAYOUT)
    each = aggregate(clients, weights, LAYOUT, client_stats=True, backend=backend).client_stats
    total = (torch.tensor(weights, dtype=torch.float64)[:, None] * unit_norms(each, LAYOUT)).sum(0)
    return mean_client_norms(total.numpy(), sum(weights), LAYOUT)


def literal(metric, where, params, clients, weights):
    """Computes the formula for one unit in NumPy float64."""
    own = clients.double().numpy()[:, where]
    mean = np.average(own, axis=0, weights=weights)
    below = {
        "l2_per_parameter": math.sqrt(own.shape[1]),
        "relative_change": np.linalg.norm(params.double().numpy()[where]),
        "agreement": np.average(np.linalg.norm(own, axis=1), weights=weights),
    }[metric]
    return np.linalg.norm(mean) / below


def change_of(stats, pooling="mean", layout=LAYOUT, **more):
    return Change(layout, stats, score_layers(stats), more.pop("parameters", None), layout, pooling, **more)


def measured(metric, change, scale, pooling="mean", layout=LAYOUT):
    given = change_of(layer_stats(change, layout), pooling, layout)
    return excess(given) if metric == "excess" else ratios(given, scale)


@pytest.mark.parametrize("metric", RATIOS)
def test_values_equal_their_formulas(backend, backend_device, generator, metric):
    clients = torch.randn(5, SIZE, generator=generator)
    params = torch.randn(SIZE, generator=generator) * 3
    weights = [3, 1, 4, 1, 5]
    scale = scale_of(metric, params.to(backend_device), clients.to(backend_device), weights, backend)
    change = (clients.double() * torch.tensor(weights)[:, None]).sum(0) / 14
    layers, blocks = slices()
    one_by_one = [literal(metric, where, params, clients, weights) for where in layers]
    as_one = [literal(metric, where, params, clients, weights) for where in blocks]
    means = [np.mean([one_by_one[layer] for layer in block.layers]) for block in LAYOUT.blocks]
    for pooling, expected in zip(POOLINGS, (means, as_one), strict=True):
        got = measured(metric, change, scale, pooling)
        assert got.layers.tolist() == pytest.approx(one_by_one, rel=1e-6)
        assert got.blocks.tolist() == pytest.approx(expected, rel=1e-6)
        assert got.layers.dtype == got.blocks.dtype == torch.float64


def test_by_hand():
    """h.0's weight, of norm 10, moved by (3, 4, 0 ...), and its bias, which was zero, by (0, 6, 8)."""
    change, params = torch.zeros(SIZE), torch.zeros(SIZE)
    change[:2], change[7:9], params[0] = torch.tensor([3.0, 4.0]), torch.tensor([6.0, 8.0]), 10.0
    relative = unit_norms(layer_stats(params, LAYOUT), LAYOUT)
    assert measured("relative_change", change, relative).layers.tolist() == [0.5, 0, 0, 0, 0]
    assert measured("relative_change", change, relative).blocks.tolist() == [0.25, -1, -1]
    assert measured("relative_change", change, relative, "pooled").blocks[0].item() == pytest.approx(
        math.sqrt(125) / 10, rel=1e-15
    )
    root = root_counts(LAYOUT)
    assert measured("l2_per_parameter", change, root).blocks[0].item() == pytest.approx(
        (5 / math.sqrt(6) + 10 / math.sqrt(3)) / 2, rel=1e-15
    )


def test_excess_is_the_score_of_the_paper(generator):
    change = torch.randn(SIZE, generator=generator)
    stats = layer_stats(change, LAYOUT)
    scores = score_layers(stats)
    for pooling in POOLINGS:
        got = measure("excess", change_of(stats, pooling))
        assert torch.equal(got.blocks, score_blocks(scores, LAYOUT, stats, pooling))
        assert got.layers.tolist() == pytest.approx((torch.sqrt(1 + scores.excess) - 1).tolist(), abs=1e-15)


def test_pooled_l2_ranks_like_blocks_as_their_norms(generator):
    change = torch.randn(SIZE, generator=generator)
    got = measured("l2_per_parameter", change, root_counts(LAYOUT), "pooled").blocks
    first, second = (float(change[where].double().norm()) for where in slices()[1][:2])
    assert (got[0] > got[1]).item() == (first > second)


def test_agreement_is_one_for_equal_changes_and_zero_for_opposite_ones(generator):
    one = torch.randn(SIZE, generator=generator, dtype=torch.float64)
    alike, weights = torch.stack([one, 2 * one, 5 * one]), [1, 2, 3]
    for pooling in POOLINGS:
        scale = scale_of("agreement", None, alike, weights)
        got = measured("agreement", aggregate(alike, [1 / 6, 2 / 6, 3 / 6], LAYOUT).change, scale, pooling)
        assert got.layers.tolist() == pytest.approx([1.0] * 5, rel=1e-12)
        assert got.blocks.tolist() == pytest.approx([1.0] * 3, rel=1e-12)
        opposed = torch.stack([one, -one])
        scale = scale_of("agreement", None, opposed, [1, 1])
        got = measured("agreement", aggregate(opposed, [0.5, 0.5], LAYOUT).change, scale, pooling)
        assert got.layers.tolist() == [0] * 5
        assert got.blocks.tolist() == [-1] * 3


@examples(60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from(POOLINGS))
def test_agreement_lies_between_zero_and_one(seed, clients, pooling):
    draws = np.random.default_rng(seed)
    changes = torch.from_numpy(draws.normal(draws.normal(), 1, (clients, SIZE)))
    weights = draws.integers(1, 99, clients).tolist()
    scale = scale_of("agreement", None, changes, weights)
    change = aggregate(changes, [weight / sum(weights) for weight in weights], LAYOUT).change
    got = measured("agreement", change, scale, pooling)
    for values in (got.layers, got.blocks):
        assert bool(((values > 0) & (values <= 1 + 1e-12)).all())


DEGENERATE = {
    "one element": torch.tensor([5.0]),
    "no element": torch.empty(0),
    "zero": torch.zeros(9),
    "NaN": torch.tensor([1.0, NAN, 2.0]),
    "Inf": torch.tensor([1.0, INF, 2.0]),
    "squares beyond float64": torch.tensor([1e200, 1e200], dtype=torch.float64),
}


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_layers_are_finite_and_never_win(name, pooling):
    """Compares a degenerate layer in a block of its own with a block of the smallest possible value."""
    odd, ordinary = DEGENERATE[name], torch.tensor([1e-30, -1e-30])
    layout = ParameterLayout.from_shapes({"h.0.w": tuple(odd.shape), "h.1.w": (2,)})
    stats = layer_stats([odd, ordinary])
    for scale in (root_counts(layout), torch.full((4,), 1e-300, dtype=torch.float64)):
        got = ratios(change_of(stats, pooling, layout), scale)
        assert got.layers[0] == 0 < got.layers[1]
        assert got.blocks[0] == -1
        assert got.blocks[1] > 0
        assert torch.isfinite(got.layers).all()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("bad", [0.0, NAN, INF, 1e-320])
def test_a_scale_of_zero_makes_a_layer_degenerate(bad, pooling):
    change = torch.full((SIZE,), 1e30)
    scale = torch.ones(8, dtype=torch.float64)
    scale[[0, 5]] = bad
    got = measured("relative_change", change, scale, pooling)
    assert got.layers[0] == 0
    assert torch.isfinite(got.blocks).all()
    assert got.blocks[0] < got.blocks[1]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_block_that_cannot_be_applied_takes_no_place(pooling):
    change = torch.ones(SIZE)
    change[7] = NAN
    got = measured("l2_per_parameter", change, root_counts(LAYOUT), pooling)
    assert got.layers.tolist() == [1, 0, 1, 1, 1]
    assert got.blocks.tolist() == pytest.approx([-1, 1, 1], rel=1e-15)


def test_without_clients_all_values_are_minus_one():
    scale = mean_client_norms(None, 0, LAYOUT)
    assert scale.tolist() == [0] * 8
    assert measured("agreement", torch.zeros(SIZE), scale).blocks.tolist() == [-1] * 3


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"scale: got None; expected \[8\], a number for each layer"):
        measured("agreement", torch.ones(SIZE), None)
    with pytest.raises(InputError, match=r"scale: got \(5,\)"):
        measured("agreement", torch.ones(SIZE), torch.ones(5))
    with pytest.raises(InputError, match=r"pooling: got 'sum'; expected one of mean, pooled"):
        measured("agreement", torch.ones(SIZE), root_counts(LAYOUT), "sum")


# --- some of the layers only -----------------------------------------------------------------------


@pytest.mark.parametrize(("scored", "own"), [("matrices", "w"), ("vectors", "b")])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_block_is_scored_by_the_layers_that_count(generator, scored, own, pooling):
    change = torch.randn(SIZE, generator=generator)
    layout = scored_layout(LAYOUT, scored)
    got = measured("excess", change, None, pooling, layout)
    alone = measured("excess", change, None).layers
    places = [LAYOUT.names.index(f"h.{block}.{own}") for block in (0, 1)]
    if pooling == "pooled":
        alone = score_layers(layer_stats(change, LAYOUT)).excess
    assert got.blocks[:2].tolist() == pytest.approx(alone[places].tolist(), rel=1e-9)
    head = alone[-1].item() if scored == "vectors" else -1.0
    assert got.blocks[2].item() == pytest.approx(head), "the head is a vector"
    for metric in ("l2_per_parameter", "relative_change"):
        scale = torch.ones(len(LAYOUT.layers) + len(LAYOUT.blocks), dtype=torch.float64)
        blocks = measured(metric, change, scale, pooling, layout).blocks
        assert blocks[:2].tolist() == pytest.approx(layer_stats(change, LAYOUT).l2[places].tolist())
        assert (blocks[2] == -1) == (scored == "matrices")
    assert layout.offsets.equal(LAYOUT.offsets)
    assert layout.layers == LAYOUT.layers


def test_all_layers_are_the_layout_itself():
    assert scored_layout(LAYOUT, "all") is LAYOUT


def test_groups_without_scored_layers_are_refused():
    by_tensor = ParameterLayout.from_shapes(SHAPES, "tensor")
    for scored in ("matrices", "vectors"):
        with pytest.raises(
            InputError, match=rf"selection.scored_layers: got '{scored}'; expected all: the bl"
        ):
            scored_layout(by_tensor, scored)
