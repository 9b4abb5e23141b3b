"""The metrics of single clients' changes, compared with their formulas on the numbers themselves."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.client_changes import LAYOUT, SHAPES, SIZE, places_of, seen, shares_of, voted
from support.sampling import examples

from fedtlu_fast import InputError, ParameterLayout, layer_stats, score_layers
from fedtlu_fast.registry import NAMES, find
from fedtlu_fast.scoring.block_metrics import Change, aggregate_only, measure
from fedtlu_fast.scoring.metrics.units import behind
from fedtlu_fast.scoring.units import scored_layout

POOLINGS = ("mean", "pooled")
OF_CLIENTS = ("signal", "signal_to_noise", "clipped_norms", "votes")
WEIGHTS = [3.0, 1.0, 4.0, 1.0, 5.0]


def literal(metric, own, shares):
    """The formula for one unit, by NumPy on the changes [K, n] of the clients that sent it."""
    own, shares = own[shares > 0], shares[shares > 0]
    mean, size, squares = shares @ own, own.shape[1], (shares**2).sum()
    if metric == "signal":
        pairs = [(j, k) for j, k in product(range(len(own)), repeat=2) if j != k]
        cross = sum(shares[j] * shares[k] * (own[j] @ own[k]) for j, k in pairs)
        return cross / sum(shares[j] * shares[k] for j, k in pairs) / size
    if metric == "signal_to_noise":
        variance = (shares * ((own - mean) ** 2).sum(axis=1)).sum() / (1 - squares)
        return mean @ mean / (squares * variance)
    norms = np.linalg.norm(own, axis=1)
    median = np.sort(norms)[(len(norms) - 1) // 2]
    return (shares * np.minimum(norms, median)).sum() / np.sqrt(size)


def expected(metric, rows, weights, pooling, sent=None):
    """The values of all layers, or None, and of all blocks."""
    if metric == "votes":
        return None, voted(rows, weights, pooling, sent)
    owner = {layer: index for index, block in enumerate(LAYOUT.blocks) for layer in block.layers}
    layers = [
        literal(metric, rows[:, places_of([layer])], shares_of(weights, sent, owner[layer]))
        for layer in range(len(LAYOUT.layers))
    ]
    blocks = [
        literal(metric, rows[:, places_of(block.layers)], shares_of(weights, sent, index))
        if pooling == "pooled"
        else np.mean([layers[layer] for layer in block.layers])
        for index, block in enumerate(LAYOUT.blocks)
    ]
    return layers, blocks


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("metric", OF_CLIENTS)
@pytest.mark.parametrize("clients", [2, 5])
def test_values_equal_their_formulas(metric, pooling, clients):
    rows = np.random.default_rng(clients).normal(0.5, 1, (clients, SIZE))
    found = measure(metric, seen(rows, WEIGHTS[:clients], pooling))
    layers, blocks = expected(metric, rows, WEIGHTS[:clients], pooling)
    assert found.blocks.tolist() == pytest.approx(blocks, rel=1e-9, abs=1e-12)
    assert found.blocks.dtype == torch.float64
    if layers is None:
        assert found.layers is None
    else:
        assert found.layers.dtype == torch.float64
        assert found.layers.tolist() == pytest.approx(layers, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("metric", OF_CLIENTS)
def test_a_block_is_scored_by_those_who_sent_it(metric, pooling):
    draws = np.random.default_rng(3)
    rows, sent = draws.normal(0.5, 1, (5, SIZE)), draws.random((5, len(LAYOUT.blocks))) < 0.6
    sent[:2] = True  # two senders of each block
    for index in range(len(LAYOUT.blocks)):
        for place in LAYOUT.runs([index]):
            rows[~sent[:, index], place] = 0
    found = measure(metric, seen(rows, WEIGHTS, pooling, sent=sent))
    assert found.blocks.tolist() == pytest.approx(
        expected(metric, rows, WEIGHTS, pooling, sent)[1], rel=1e-9, abs=1e-12
    )


@pytest.mark.parametrize("metric", OF_CLIENTS)
def test_a_block_that_nobody_sent_is_not_ranked(metric):
    rows, sent = np.ones((3, SIZE)) + np.arange(3)[:, None], np.ones((3, len(LAYOUT.blocks)), np.bool_)
    sent[:, 1] = False
    found = measure(metric, seen(rows, [1.0, 2.0, 3.0], sent=sent)).blocks
    assert found[1] == -1
    assert (found[[0, 2, 3]] > -1).all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_signal_is_unbiased_whatever_the_clients_variances(pooling):
    """Over all signs of the clients' deviations, which are independent, the mean estimate is the truth."""
    draws = np.random.default_rng(11)
    truth, deviations = draws.normal(0, 1, SIZE), draws.normal(0, [[1], [5], [0.1], [2], [0.5]], (5, SIZE))
    found = [
        measure("signal", seen(truth + np.array(signs)[:, None] * deviations, WEIGHTS, pooling))
        for signs in product((-1, 1), repeat=5)
    ]
    energies = [(truth[places_of([layer])] ** 2).mean() for layer in range(len(LAYOUT.layers))]
    mean = torch.stack([one.layers for one in found]).mean(dim=0)
    assert mean.tolist() == pytest.approx(energies, rel=1e-9)
    if pooling == "mean":
        blocks = [np.mean([energies[layer] for layer in block.layers]) for block in LAYOUT.blocks]
    else:
        blocks = [(truth[places_of(block.layers)] ** 2).mean() for block in LAYOUT.blocks]
    assert torch.stack([one.blocks for one in found]).mean(dim=0).tolist() == pytest.approx(blocks, rel=1e-9)
    assert bool((torch.stack([one.blocks for one in found]) < 0).any()), "single estimates may be negative"


def test_with_equal_weights_signal_is_the_mean_energy_less_its_noise():
    rows = np.random.default_rng(0).normal(0, 1, (4, SIZE))
    found = measure("signal", seen(rows, [2.0] * 4, "pooled")).blocks
    for block, value in zip(LAYOUT.blocks, found.tolist(), strict=True):
        own = rows[:, places_of(block.layers)]
        mean = own.mean(axis=0)
        variance = ((own**2).sum(axis=1).mean() - mean @ mean) / (1 - 1 / 4)
        assert value == pytest.approx((mean @ mean - variance / 4) / own.shape[1], rel=1e-9)


@pytest.mark.parametrize("metric", ["signal", "signal_to_noise"])
def test_one_client_alone_says_nothing_of_its_noise(metric):
    found = measure(metric, seen(np.ones((1, SIZE)), [3.0]))
    assert found.layers.tolist() == [0] * len(LAYOUT.layers)
    assert found.blocks.tolist() == [-1] * len(LAYOUT.blocks)
    assert measure(metric, seen(np.ones((2, SIZE)) * [[1], [2]], [3.0, 0.0])).blocks.tolist() == [-1] * 7


@pytest.mark.parametrize("metric", ["clipped_norms", "votes"])
def test_one_client_alone_is_ranked_by_its_own_change(metric):
    found = measure(metric, seen(np.linspace(1, 2, SIZE)[None], [3.0])).blocks
    assert found[:4].tolist() == sorted(found[:4].tolist())
    assert found[0] > -1
    assert len(set(found[:4].tolist())) == 4


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("metric", OF_CLIENTS)
def test_without_clients_no_block_is_ranked(metric, pooling):
    none = layer_stats(torch.zeros(SIZE), LAYOUT)
    empty = type(none)(LAYOUT.names, *torch.zeros(0, 6, len(LAYOUT.layers)).double().unbind(dim=1))
    change = Change(
        LAYOUT, none, score_layers(none), None, LAYOUT, pooling, client_stats=empty,
        client_weights=torch.zeros(0).double(),
    )  # fmt: skip
    assert measure(metric, change).blocks.tolist() == [-1] * len(LAYOUT.blocks)


def test_equal_changes_have_no_noise_to_divide_by():
    found = measure("signal_to_noise", seen(np.ones((4, SIZE)), [1.0] * 4))
    assert found.layers.tolist() == [0] * len(LAYOUT.layers)
    assert found.blocks.tolist() == [-1] * len(LAYOUT.blocks)
    assert measure("signal", seen(np.ones((4, SIZE)), [1.0] * 4)).blocks.tolist() == pytest.approx([1] * 7)


@pytest.mark.parametrize("metric", OF_CLIENTS)
@pytest.mark.parametrize("scored", ["matrices", "vectors"])
def test_some_layers_only(metric, scored):
    layout = ParameterLayout.from_shapes(
        {name: shape for name, shape in SHAPES.items() if name.startswith("h.")}
    )
    rows = np.random.default_rng(5).normal(0.3, 1, (5, layout.size))
    some = scored_layout(layout, scored)
    whole, own = [measure(metric, seen(rows, WEIGHTS, layout=layout, scored=one)) for one in (layout, some)]
    if whole.layers is None:
        kept = [layer.name for layer in layout.layers if (len(layer.shape) > 1) == (scored == "matrices")]
        alone = ParameterLayout.from_shapes(
            {("h." + name.split(".")[1] + ".x"): SHAPES[name] for name in kept}
        )
        places = np.concatenate(
            [np.arange(x.offset, x.offset + x.numel) for x in layout.layers if x.name in kept]
        )
        expected_blocks = measure(metric, seen(rows[:, places], WEIGHTS, layout=alone)).blocks
    else:
        assert own.layers.equal(whole.layers), "single layers have the same values"
        expected_blocks = torch.stack([own.layers[list(block.layers)].mean() for block in some.blocks])
    assert own.blocks.tolist() == pytest.approx(expected_blocks.tolist(), rel=1e-12)


@examples(60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.sampled_from(POOLINGS), st.integers(-40, 40))
def test_scaling_and_order_of_clients(seed, clients, pooling, power):
    """The factor is a power of two, so that it makes no rounding error."""
    draws = np.random.default_rng(seed)
    rows, weights = draws.normal(0.3, 1, (clients, SIZE)), draws.integers(1, 9, clients).astype(float)
    order, factor = draws.permutation(clients), 2.0**power
    for metric, degree in (("signal", 2), ("signal_to_noise", 0), ("clipped_norms", 1), ("votes", 0)):
        found = measure(metric, seen(rows, weights.tolist(), pooling)).blocks
        scaled = measure(metric, seen(factor * rows, weights.tolist(), pooling)).blocks
        known = (found != -1) & (scaled != -1)
        assert known.equal(found != -1) or metric == "signal", "a signal of exactly -1 is no accident of rank"
        torch.testing.assert_close(
            scaled[known], factor**degree * found[known], rtol=1e-6, atol=factor**degree * 1e-12
        )
        other = measure(metric, seen(rows[order], weights[order].tolist(), pooling)).blocks
        torch.testing.assert_close(other, found, rtol=1e-6, atol=1e-10)


# --- what hostile clients can do; the bounds of single metrics are in test_bounds.py -----------------


def test_signal_grows_with_the_length_of_a_hostile_change_and_not_with_its_square():
    rows = np.random.default_rng(2).normal(0.5, 1, (5, SIZE))
    attack = np.random.default_rng(3).normal(0, 1, SIZE)
    grown = []
    for length in (1e3, 1e6):
        rows[4] = length * attack
        grown.append(measure("signal", seen(rows, WEIGHTS, "pooled")).blocks.abs() / length)
    torch.testing.assert_close(grown[0], grown[1], rtol=0.2, atol=1e-2)


# --- degenerate layers ------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
DEGENERATE = {
    "one element": torch.tensor([5.0]),
    "no element": torch.empty(0),
    "zero": torch.zeros(9),
    "NaN": torch.tensor([1.0, NAN, 2.0]),
    "Inf": torch.tensor([1.0, INF, 2.0]),
    "squares beyond float64": torch.tensor([1e200, 1e200], dtype=torch.float64),
}


class Sample:
    """Held-out losses of which only the gradient is known."""

    def __init__(self, gradient):
        self.known = gradient

    def loss(self, blocks):
        raise AssertionError("a metric of the gradient asks for no loss")

    def gradient(self):
        return self.known


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("metric", [*OF_CLIENTS, "aligned"])
def test_degenerate_layers_are_finite_and_never_win(name, pooling, metric):
    """Compares a degenerate layer in a block of its own with a block of a small value."""
    odd, ordinary = DEGENERATE[name], torch.tensor([1e-9, 2e-9])
    layout = ParameterLayout.from_shapes({"h.0.w": tuple(odd.shape), "h.1.w": (2,)}, blocks=("h.*",))
    clients = [layer_stats([odd, factor * ordinary]) for factor in (0.5, 1.5)]
    stats = layer_stats([odd, ordinary])
    names = ("count", "mean", "std", "l2", "abs_max", "nonfinite")
    each = type(stats)(stats.names, *(torch.stack([getattr(own, x) for own in clients]) for x in names))
    vector = torch.cat([odd.double(), ordinary.double()])
    gradient = torch.full_like(vector, -1e-30 if metric != "aligned" or name == "zero" else 1.0)
    change = Change(
        layout, stats, score_layers(stats), None, layout, pooling, client_stats=each,
        client_weights=torch.ones(2).double(), vector=vector, held_out=Sample(gradient),
    )  # fmt: skip
    got = measure(metric, change)
    assert torch.isfinite(got.blocks).all()
    if metric == "aligned" and name in ("one element", "squares beyond float64"):
        return
    assert got.blocks[0] == -1 < got.blocks[1]
    if got.layers is not None:
        assert got.layers[0] == 0 != got.layers[1]
        assert torch.isfinite(got.layers).all()


def test_blocks_that_are_not_ranked_are_behind_all_others():
    values, ranked = torch.tensor([3.0, -7.0, 0.0], dtype=torch.float64), torch.tensor([True, True, False])
    assert behind(values, ranked)[2] < -7
    assert behind(values, ranked)[:2].tolist() == [3, -7]
    assert behind(values, torch.tensor([True, False, False])).tolist() == [3, -1, -1]
    assert behind(values, torch.tensor([False] * 3)).tolist() == [-1] * 3
    assert behind(values - 4.0, torch.tensor([True, False, False]))[1] < -1


# --- the gradient on held-out samples ---------------------------------------------------------------


@pytest.mark.parametrize("pooling", POOLINGS)
def test_aligned_is_the_decrease_of_the_loss_to_first_order(pooling):
    draws = np.random.default_rng(8)
    vector, gradient = draws.normal(0, 1, (2, SIZE)).astype(np.float32)
    stats = layer_stats(torch.from_numpy(vector), LAYOUT)
    change = Change(
        LAYOUT, stats, score_layers(stats), None, LAYOUT, pooling,
        held_out=Sample(torch.from_numpy(gradient)), vector=torch.from_numpy(vector),
    )  # fmt: skip
    found = measure("aligned", change)
    product_ = -vector.astype(np.float64) * gradient.astype(np.float64)
    layers = [product_[places_of([layer])].sum() for layer in range(len(LAYOUT.layers))]
    combine = np.mean if pooling == "mean" else np.sum
    blocks = [combine([layers[layer] for layer in block.layers]) for block in LAYOUT.blocks]
    assert found.layers.tolist() == pytest.approx(layers, rel=1e-12)
    assert found.blocks.tolist() == pytest.approx(blocks, rel=1e-12)
    assert found.blocks.dtype == found.layers.dtype == torch.float64
    assert min(found.blocks.tolist()) < 0


def test_aligned_adds_in_float64():
    layout = ParameterLayout.from_shapes({"h.0.w": (3,), "h.1.w": (3,)})
    vector = torch.tensor([1e8, 1.0, -1e8, 1.0, 1.0, 1.0])
    stats = layer_stats(vector, layout)
    change = Change(
        layout, stats, score_layers(stats), None, layout, held_out=Sample(-torch.ones(6)), vector=vector
    )
    assert measure("aligned", change).layers.tolist() == [1.0, 3.0]


def test_benefit_is_the_fall_of_the_loss_by_each_block_alone():
    class Losses:
        def loss(self, blocks):
            own = {(): 5.0, (grouped[0],): 4.5, (grouped[1],): 7.0, (grouped[2],): math.nan}
            return own.get(tuple(blocks), 5.0)

    grouped = [block for group in LAYOUT.groups for block in group.blocks]
    stats = layer_stats(torch.ones(SIZE), LAYOUT)
    found = measure("benefit", Change(LAYOUT, stats, score_layers(stats), None, LAYOUT, held_out=Losses()))
    assert found.layers is None
    assert found.blocks[grouped[:2]].tolist() == [0.5, -2.0]
    behind_all = [*LAYOUT.unique, grouped[2]]
    assert found.blocks[behind_all].max() < -2


@pytest.mark.parametrize("metric", ["aligned", "benefit", *OF_CLIENTS])
def test_what_is_missing_is_said(metric):
    stats = layer_stats(torch.ones(SIZE), LAYOUT)
    with pytest.raises(InputError, match=f"metric: got '{metric}'; expected a (server|change)"):
        measure(metric, Change(LAYOUT, stats, score_layers(stats), None, LAYOUT))
    if metric == "aligned":
        sampled = Change(LAYOUT, stats, score_layers(stats), None, LAYOUT, held_out=Sample(torch.ones(SIZE)))
        with pytest.raises(InputError, match="a change of which more than statistics is known"):
            measure(metric, sampled)


# A benefit is a block's own, with nothing to combine.
@pytest.mark.parametrize("metric", [name for name in NAMES["metric"] if name != "benefit"])
def test_an_unknown_pooling_is_refused(metric):
    change = seen(np.ones((2, SIZE)), [1.0, 1.0], "sum")
    object.__setattr__(change, "parameters", torch.ones(SIZE))
    object.__setattr__(change, "client_norms", torch.ones(len(LAYOUT.layers) + len(LAYOUT.blocks)).double())
    object.__setattr__(change, "held_out", Sample(torch.ones(SIZE)))
    with pytest.raises(InputError, match=r"pooling: got 'sum'; expected one of mean, pooled"):
        measure(metric, change)


def test_which_metrics_need_the_aggregate_alone():
    alone = {name for name in NAMES["metric"] if aggregate_only(name)}
    assert alone == {"excess", "l2_per_parameter", "relative_change"}
    with pytest.raises(InputError, match=r"metric: got 'signl'\. Did you mean signal"):
        aggregate_only("signl")


def test_every_metric_says_whose_it_is():
    for name in NAMES["metric"]:
        module = __import__(find("metric", name, "metric").__module__, fromlist=["x"])
        assert "(ours)" in module.__doc__ or "(arXiv" in module.__doc__


# --- what a metric receives -------------------------------------------------------------------------

SPOILT = (
    "vector",
    "client_values.values",
    "client_weights",
    "client_sent",
    "client_norms",
    "client_stats.l2",
    "stats.l2",
)


def spoil(change):
    """A metric that changes in place what others read too."""
    tensor = change
    for name in spoil.path.split("."):
        tensor = getattr(tensor, name)
    tensor.zero_()
    return [0.0] * len(change.layout.blocks)


@pytest.mark.parametrize("path", SPOILT)
def test_a_metric_that_changes_what_others_read_is_refused(path):
    change = seen(np.ones((2, SIZE)), [1.0, 2.0], sent=np.ones((2, len(LAYOUT.blocks)), np.bool_))
    units = len(LAYOUT.layers) + len(LAYOUT.blocks)
    change = replace(change, client_norms=torch.ones(units, dtype=torch.float64))
    spoil.path = path
    with pytest.raises(InputError, match=rf"spoil, which changed {path.partition('.')[0]}.* in place"):
        measure(f"{__name__}:spoil", change)
