"""Tests the oracle against all sets of blocks, written out."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast import InputError, ParameterLayout
from fedtlu_fast.scoring import layer_stats, score_layers
from fedtlu_fast.scoring.block_metrics import Change
from fedtlu_fast.selection import Evidence, ServerRoom
from fedtlu_fast.selection.oracle import Oracle

# Blocks 0: embedding, 1-4: h, 5-7: g, 8: head.
LAYOUT = ParameterLayout.from_shapes(
    {
        "embedding.weight": (9, 9),
        **{f"h.{index}.weight": (2, 2) for index in range(4)},
        **{f"g.{index}.weight": (3, 2) for index in range(3)},
        "head.weight": (9, 9),
    }
)
GROUPS = [group.blocks for group in LAYOUT.groups]


class Table:
    """Held-out losses that depend on single blocks and on pairs; remembers what was asked."""

    def __init__(self, seed):
        draws = np.random.default_rng(seed)
        self.single, self.pairs = draws.normal(size=9), draws.normal(size=(9, 9))
        self.asked = []

    def loss(self, blocks):
        self.asked.append(tuple(sorted(blocks)))
        pairs = sum(self.pairs[one, other] for one, other in combinations(sorted(blocks), 2))
        return float(sum(self.single[list(blocks)]) + pairs)

    def gradient(self):
        raise AssertionError("the oracle needs no gradient")


def evidence_of(sample):
    vector = torch.ones(LAYOUT.size)
    stats = layer_stats(vector, LAYOUT)
    change = Change(LAYOUT, stats, score_layers(stats), None, LAYOUT, held_out=sample)
    return Evidence(LAYOUT, {}, np.random.default_rng(0), change=change)


def chosen(oracle, sample, quotas):
    return oracle.choose(evidence_of(sample), ServerRoom(LAYOUT, quotas))[0].nonzero()[0].tolist()


@examples(30)
@given(st.integers(0, 2**32), st.integers(0, 4), st.integers(0, 3))
def test_the_best_of_all_sets_is_chosen(seed, first, second):
    sample = Table(seed)
    sets = product(combinations(GROUPS[0], first), combinations(GROUPS[1], second))
    best = min((one + other for one, other in sets), key=sample.loss)
    assert chosen(Oracle(), sample, (first, second)) == sorted(best)


@examples(30)
@given(st.integers(0, 2**32))
def test_beyond_its_limit_it_adds_the_best_block_each_time(seed):
    sample, quotas = Table(seed), (2, 1)
    left, expected = list(quotas), []
    while any(left):
        open_blocks = [b for at in (0, 1) if left[at] for b in GROUPS[at] if b not in expected]
        best = min(open_blocks, key=lambda block: sample.loss([*expected, block]))
        left[0 if best in GROUPS[0] else 1] -= 1
        expected.append(best)
    sample.asked.clear()
    assert chosen(Oracle(sets=17), sample, quotas) == sorted(expected)
    assert len(sample.asked) <= 7 + 6 + 4
    assert chosen(Oracle(sets=18), sample, quotas) == chosen(Oracle(), sample, quotas)


def test_a_loss_that_is_no_number_is_never_chosen_before_one_that_is():
    sample = Table(0)
    sample.single[1:4] = np.nan
    assert chosen(Oracle(), sample, (1, 0)) == [4]
    assert chosen(Oracle(sets=1), sample, (1, 0)) == [4]


def test_without_a_sample_it_says_what_is_missing():
    with pytest.raises(InputError, match="held-out samples"):
        chosen(Oracle(), None, (1, 1))
