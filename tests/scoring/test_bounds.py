"""The bounds that `votes` and `clipped_norms` claim, against hostile changes that are searched freely."""

from dataclasses import replace
from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
import torch
from hypothesis import given, target
from hypothesis import strategies as st
from support.client_changes import LAYOUT, SIZE, places_of, seen, voted
from support.hostile_cohorts import GROUP, GROUPED, cohorts
from support.sampling import examples

from fedtlu_fast.scoring.block_metrics import measure

POOLINGS = ("mean", "pooled")


def share_of(weights, honest):
    """The hostile clients' share of the weights, exactly."""
    return Fraction(int(weights[honest:].sum()), int(weights.sum()))


# --- votes ------------------------------------------------------------------------------------------


@examples(120)
@given(cohorts(), st.sampled_from(POOLINGS))
def test_votes_stay_within_the_share_of_hostile_clients(cohort, pooling):
    rows, weights, honest = cohort
    share = float(share_of(weights, honest))
    found = measure("votes", seen(rows, weights.tolist(), pooling)).blocks.numpy()[GROUPED]
    others = np.array(voted(rows[:honest], weights[:honest], pooling))[GROUPED]
    target(float(np.abs(found - (1 - share) * others - share / 2).max() - share / 2))
    assert (found >= (1 - share) * others - 1e-12).all()
    assert (found <= (1 - share) * others + share + 1e-12).all()


@examples(120)
@given(cohorts(), st.sampled_from(POOLINGS))
def test_votes_change_the_order_of_close_blocks_alone(cohort, pooling):
    rows, weights, honest = cohort
    share = float(share_of(weights, honest))
    found = measure("votes", seen(rows, weights.tolist(), pooling)).blocks.numpy()[GROUP]
    others = np.array(voted(rows[:honest], weights[:honest], pooling))[GROUP]
    passed = found[:, None] >= found[None, :]  # the first is before the second, or may be
    behind = (others[None, :] - others[:, None])[passed].max()
    target(float(behind - share / (1 - share)))
    assert behind <= share / (1 - share) + 1e-9


@examples(120)
@given(cohorts(agreed=True), st.sampled_from(POOLINGS))
def test_where_the_others_agree_hostile_clients_move_a_block_by_few_ranks(cohort, pooling):
    rows, weights, honest = cohort
    share = share_of(weights, honest)
    most = floor((len(GROUP) - 1) * share / (1 - share))
    values = measure("votes", seen(rows, weights.tolist(), pooling)).blocks[GROUP].numpy().round(12)
    places = np.arange(len(GROUP))  # of the blocks without an attack, from below
    lowest = (values[None, :] < values[:, None]).sum(axis=1)
    highest = (values[None, :] <= values[:, None]).sum(axis=1) - 1  # equal blocks may be in any order
    moved = int(np.maximum(highest - places, places - lowest).max())
    target(float(moved - most))
    assert moved <= most


def test_the_bound_of_votes_is_reached():
    """Three of seven clients lift the last block by two ranks, the most: 3 (3/7) / (4/7) = 2.25."""
    rows = np.ones((7, SIZE))
    for step, block in enumerate(GROUP):
        places = places_of(LAYOUT.blocks[block].layers)
        rows[:4, places] = 1 + step
        rows[4:, places] = (9, 2, 1, 3)[step]
    found = measure("votes", seen(rows, [1.0] * 7)).blocks[GROUP]
    assert found.tolist() == pytest.approx([3 / 7, 1 / 3, 8 / 21, 6 / 7])
    assert found.argsort().tolist() == [1, 2, 0, 3]


# --- clipped norms ----------------------------------------------------------------------------------


def interval(norms, shares, hostile, share):
    """What `clipped_norms` says a unit's value, times sqrt(n), lies in.

    Args:
        norms: [H], of the honest clients.
        shares: [H], of the honest clients among themselves.
        hostile: how many others there are.
        share: theirs of all weights.
    """
    ordered, middle = np.sort(norms), ceil((len(norms) + hostile) / 2)
    low = ordered[middle - hostile - 1] if middle > hostile else 0.0
    high = ordered[middle - 1]
    least, most = [(1 - share) * shares @ np.minimum(norms, cut) for cut in (low, high)]
    return least, most + share * high


def bounds_of_blocks(rows, weights, honest, pooling):
    """The intervals of all blocks, two of [B]."""
    shares, share = weights[:honest] / weights[:honest].sum(), float(share_of(weights, honest))
    found = []
    for block in LAYOUT.blocks:
        units = [block.layers] if pooling == "pooled" else [[layer] for layer in block.layers]
        own = []
        for layers in units:
            places = places_of(layers)
            norms = np.linalg.norm(rows[:honest, places], axis=1)
            ends = interval(norms, shares, len(rows) - honest, share)
            own.append(np.array(ends) / np.sqrt(len(places)))
        found.append(np.mean(own, axis=0))
    return np.array(found).T


@examples(120)
@given(cohorts(), st.sampled_from(POOLINGS))
def test_clipped_norms_stay_between_norms_of_honest_clients(cohort, pooling):
    rows, weights, honest = cohort
    rows, weights = rows[: 2 * honest], weights[: 2 * honest]  # at most half are hostile
    least, most = bounds_of_blocks(rows, weights, honest, pooling)
    found = measure("clipped_norms", seen(rows, weights.tolist(), pooling)).blocks.numpy()
    target(float(np.maximum(found / most, least / np.maximum(found, 1e-300)).max()))
    assert (found <= most * (1 + 1e-9)).all()
    ranked = least > 0
    assert (found >= least * (1 - 1e-9))[ranked].all()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("honest", "hostile"), [(3, 1), (4, 3), (5, 5), (1, 1)])
def test_the_bounds_of_clipped_norms_are_reached(honest, hostile, pooling):
    draws = np.random.default_rng(honest)
    rows, weights = draws.normal(0, 1, (honest + hostile, SIZE)), draws.integers(1, 9, honest + hostile)
    weights = weights.astype(float)
    ends = bounds_of_blocks(rows, weights, honest, pooling)
    for attack, end in zip((0.0, 1e9), ends, strict=True):
        rows[honest:] = attack
        found = measure("clipped_norms", seen(rows, weights.tolist(), pooling)).blocks.numpy()
        np.testing.assert_allclose(found, np.where(end > 0, end, -1), rtol=1e-9)


# --- changes that are no numbers --------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["votes", "clipped_norms"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_numbers_that_are_none_count_as_no_change(metric, value, pooling):
    """A run refuses such clients; who calls the metric may not."""
    rows, places = np.random.default_rng(2).normal(0, 1, (5, SIZE)), places_of(LAYOUT.blocks[0].layers)
    rows[4, places] = 0
    change = seen(rows, [1.0] * 5, pooling)
    held = change.client_stats
    l2 = held.l2.clone()
    l2[4, list(LAYOUT.blocks[0].layers)] = value
    found = measure(metric, replace(change, client_stats=replace(held, l2=l2)))
    assert torch.equal(found.blocks, measure(metric, change).blocks)
