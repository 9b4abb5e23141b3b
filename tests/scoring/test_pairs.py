"""The metric `pairs`: its formula, its bound, and the places at which clients' changes are read."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.client_changes import LAYOUT, SIZE, places_of, seen
from support.hostile_cohorts import GROUPED, cohorts
from support.sampling import examples

from fedtlu_fast import InputError, ParameterLayout
from fedtlu_fast.scoring.block_metrics import aggregate_only, measure
from fedtlu_fast.scoring.client_values import MOST, ClientValues, places_in, read_at
from fedtlu_fast.scoring.units import scored_layout

POOLINGS = ("mean", "pooled")


def literal(own, weights):
    """The median over pairs, by NumPy: each pair as often as its whole weight says."""
    held = [at for at, weight in enumerate(weights) if weight]
    products = [[own[j] @ own[k]] * int(weights[j] * weights[k]) for j, k in combinations(held, 2)]
    return float(np.median(np.concatenate(products))) / own.shape[1] if products else None


def expected(rows, weights, pooling, sent=None):
    """The values of the layers and of the blocks."""

    def value(layers, block):
        own = weights if sent is None else weights * sent[:, block]
        return literal(rows[:, places_of(layers)], own)

    layers = {at: value([at], index) for index, block in enumerate(LAYOUT.blocks) for at in block.layers}
    blocks = [
        value(block.layers, index) if pooling == "pooled" else np.mean([layers[at] for at in block.layers])
        for index, block in enumerate(LAYOUT.blocks)
    ]
    return [layers[at] for at in range(len(layers))], blocks


def drawn(seed, clients):
    """Changes with something in common, and weights."""
    draws = np.random.default_rng(seed)
    rows = (draws.normal(0.5, 1, SIZE) + draws.normal(0, 1, (clients, SIZE))).astype(np.float32)
    return rows.astype(np.float64), draws.integers(1, 5, clients).astype(float)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("clients", [2, 3, 6, 9])
def test_it_is_the_median_over_pairs(clients, pooling):
    for equal in (False, True):
        rows, weights = drawn(clients, clients)
        weights = np.ones(clients) if equal else weights
        found = measure("pairs", seen(rows, weights.tolist(), pooling))
        layers, blocks = expected(rows, weights, pooling)
        assert found.layers.tolist() == pytest.approx(layers, rel=1e-9, abs=1e-12)
        assert found.blocks.tolist() == pytest.approx(blocks, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_block_is_scored_by_the_pairs_that_both_sent_it(pooling):
    (rows, weights), draws = drawn(1, 6), np.random.default_rng(7)
    sent = draws.random((6, len(LAYOUT.blocks))) < 0.5
    sent[:2] = True
    for index in range(len(LAYOUT.blocks)):
        for place in LAYOUT.runs([index]):
            rows[~sent[:, index], place] = 0
    found = measure("pairs", seen(rows, weights.tolist(), pooling, sent=sent)).blocks
    assert found.tolist() == pytest.approx(expected(rows, weights, pooling, sent)[1], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_only_layers_that_count_are_in_a_block(pooling):
    rows, weights = drawn(2, 5)
    some = scored_layout(LAYOUT, "vectors")
    found = measure("pairs", seen(rows, weights.tolist(), pooling, scored=some))
    for block, value in zip(some.blocks, found.blocks.tolist(), strict=True):
        if pooling == "pooled":
            assert value == pytest.approx(literal(rows[:, places_of(block.layers)], weights), rel=1e-9)
        else:
            assert value == pytest.approx(float(found.layers[list(block.layers)].mean()), rel=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_blocks_without_a_pair_or_a_change_are_not_ranked(pooling):
    rows, weights = drawn(3, 4)
    assert measure("pairs", seen(rows[:1], [3.0], pooling)).blocks.tolist() == [-1] * 7
    assert measure("pairs", seen(rows[:2], [3.0, 0.0], pooling)).blocks.tolist() == [-1] * 7
    sent = np.ones((4, len(LAYOUT.blocks)), np.bool_)
    sent[1:, 1] = False
    assert measure("pairs", seen(rows, weights.tolist(), pooling, sent=sent)).blocks[1] == -1
    still = rows.copy()
    still[:, places_of(LAYOUT.blocks[2].layers)] = 0
    found = measure("pairs", seen(still, weights.tolist(), pooling)).blocks
    assert found[2] == -1
    assert (found[[0, 1, 3]] > -1).all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_block_that_colluders_cancel_is_ranked_all_the_same(pooling):
    rows, weights = drawn(4, 6)
    own = places_of(LAYOUT.blocks[0].layers)
    rows[5, own] = -(weights[:5] @ rows[:5][:, own]) / weights[5]
    change = seen(rows, weights.tolist(), pooling)
    assert float(change.stats.l2[0]) < 1e-6
    assert measure("pairs", change).blocks[0] > 0


def test_without_values_it_says_what_it_needs():
    change = replace(seen(np.ones((2, SIZE)), [1.0, 1.0]), client_values=None)
    with pytest.raises(InputError, match=r"pairs.*values of each client's change"):
        measure("pairs", change)
    assert not aggregate_only("pairs")


@pytest.mark.parametrize("scale", [2.0**-600, 2.0**600])
def test_a_factor_on_all_weights_changes_nothing(scale):
    """Servers take the weights that clients claim: their products may overflow."""
    change = seen(*drawn(5, 6))
    scaled = replace(change, client_weights=change.client_weights * scale)
    assert measure("pairs", scaled).blocks.equal(measure("pairs", change).blocks)


# --- hostile clients --------------------------------------------------------------------------------


@examples(120)
@given(cohorts(), st.sampled_from(POOLINGS))
def test_the_value_lies_between_the_claimed_quantiles_of_honest_pairs(cohort, pooling):
    rows, weights, honest = cohort
    change = seen(rows, weights.tolist(), pooling)
    found, held = measure("pairs", change), change.client_values
    pairs = list(combinations(range(len(rows)), 2))
    counts = np.array([weights[j] * weights[k] for j, k in pairs])
    own = np.array([k < honest for _, k in pairs])
    hostile = counts[~own].sum() / counts.sum()
    if hostile >= 0.5:
        return
    most = 0.5 / (1 - hostile)
    for block in GROUPED:
        units = [list(LAYOUT.blocks[block].layers)] if pooling == "pooled" else []
        units += [[layer] for layer in LAYOUT.blocks[block].layers]
        for layers in units:
            value = (
                found.blocks[block] if len(layers) > 1 and pooling == "pooled" else found.layers[layers[0]]
            )
            columns = np.concatenate([np.arange(held.starts[at], held.starts[at + 1]) for at in layers])
            values = held.values[:, columns].double().numpy()
            products = np.array([values[j] @ values[k] for j, k in pairs])[own] / len(columns)
            near, shares = 1e-5 * np.abs(products).max(), counts[own] / counts[own].sum()
            assert shares[products < float(value) - near].sum() <= most + 1e-9
            assert shares[products > float(value) + near].sum() <= most + 1e-9


@pytest.mark.parametrize(
    ("clients", "hostile", "quantiles"),
    [
        (10, 1, (0.375, 0.625)),
        (10, 2, (0.20, 0.80)),
        (10**6, 200_000, (0.22, 0.78)),
        (10**6, 250_000, (0.11, 0.89)),
        (10**6, 292_893, (0, 1)),
        (4, 1, None),
        (7, 2, None),
        (8, 2, (0.07, 0.93)),
    ],
)
def test_the_quantiles_of_the_docstring(clients, hostile, quantiles):
    honest = (clients - hostile) * (clients - hostile - 1) / (clients * (clients - 1))
    share = 1 - honest
    if quantiles is None:
        assert share >= 0.5
        return
    assert share < 0.5
    assert quantiles == pytest.approx(((0.5 - share) / (1 - share), 0.5 / (1 - share)), abs=5e-3)


def test_one_of_four_decides():
    rows = np.ones((4, SIZE))
    rows[3] = 1e6
    assert (measure("pairs", seen(rows, [1.0] * 4)).blocks[:4] > 1e5).all()
    rows = np.ones((5, SIZE))
    rows[4] = 1e6
    assert measure("pairs", seen(rows, [1.0] * 5)).blocks[:4].tolist() == pytest.approx([1] * 4)


def test_two_of_ten_cannot_buy_a_block_that_the_others_hardly_move():
    """With `signal` they can."""
    draws = np.random.default_rng(0)
    common, rows = np.ones(SIZE), draws.normal(0, 1, (10, SIZE))
    last = places_of(LAYOUT.blocks[3].layers)
    common[last] = 0.01
    rows += 3 * common
    rows[:2][:, last] = 1000
    chosen = {}
    for metric in ("pairs", "signal"):
        found = measure(metric, seen(rows, [1.0] * 10, "pooled")).blocks[:4]
        chosen[metric] = int(found.argmax())
    assert chosen["signal"] == 3
    assert chosen["pairs"] != 3


# --- the places -------------------------------------------------------------------------------------

LARGE = ParameterLayout.from_shapes({"a": (MOST * 3 + 7,), "b": (5, 5), "none": (0,), "c": (MOST,)})


def test_places_are_different_ones_of_each_layer_and_new_in_every_round():
    found = [places_in(LARGE, 0, index) for index in (1, 2)]
    held = ClientValues.of(torch.zeros(1, len(found[0])), LARGE)
    for places in found:
        assert (places[1:] > places[:-1]).all()
        for layer, first, last in zip(LARGE.layers, held.starts, held.starts[1:], strict=False):
            own = places[first:last]
            assert len(own) == min(layer.numel, MOST)
            assert ((own >= layer.offset) & (own < layer.offset + layer.numel)).all()
    assert not found[0].equal(found[1])
    assert not found[0].equal(places_in(LARGE, 1, 1))
    assert held.scales == (pytest.approx((MOST * 3 + 7) / MOST), 1, 0, 1)


def test_estimates_of_large_layers_are_unbiased():
    vectors = torch.randn(2, LARGE.size, generator=torch.Generator().manual_seed(0)) + 0.2
    first = LARGE.layers[0].numel
    truth = float(vectors[0, :first].double() @ vectors[1, :first].double())
    found = []
    for index in range(200):
        read = read_at(places_in(LARGE, 5, index), vectors, torch.zeros(LARGE.size))
        held = ClientValues.of(read, LARGE)
        own = held.values[:, : held.starts[1]].double()
        found.append(held.scales[0] * float(own[0] @ own[1]))
    spread = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - truth) < 4 * spread
    assert np.std(found) > 0
