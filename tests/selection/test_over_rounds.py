"""Tests the selectors that remember: their choices, against sums that are written out here."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast import InputError, ParameterLayout
from fedtlu_fast.randomness import generator
from fedtlu_fast.selection import Coverage, Evidence, FedTLU, ServerRoom, Smoothed, remembered_by
from fedtlu_fast.selection.over_rounds import group_ranks

# Blocks 0: embedding, 1-4: h, 5-7: g, 8: head.
LAYOUT = ParameterLayout.from_shapes(
    {
        "embedding.weight": (9, 9),
        **{f"h.{index}.weight": (2, 2) for index in range(4)},
        **{f"g.{index}.weight": (3, 2) for index in range(3)},
        "head.weight": (9, 9),
    }
)
BLOCKS = len(LAYOUT.blocks)
GROUPS = ((1, 2, 3, 4), (5, 6, 7))
CANNOT = (np.nan, -1.0, np.inf)

value = st.one_of(st.sampled_from([0.0, 1.0, 2.0, *CANNOT]), st.floats(0, 1e30, width=64))
row = st.lists(value, min_size=BLOCKS, max_size=BLOCKS)
several = st.lists(row, min_size=1, max_size=6)


def evidence_of(scores, index, memory):
    metrics = {"excess": np.asarray(scores, dtype=np.float64)[None]}
    return Evidence(LAYOUT, metrics, generator(0, "x", index), round=index, memory=memory)


def rounds_of(selector, table, quotas=(2, 1), lost=()):
    """The choice, the utility and the memory of each round; `lost` blocks are never applied."""
    memory, found = {}, []
    for index, scores in enumerate(table, start=1):
        evidence = evidence_of(scores, index, memory)
        mask = selector.choose(evidence, ServerRoom(LAYOUT, quotas))[0]
        applied = mask.copy()
        applied[[0, BLOCKS - 1]] = True
        applied[list(lost)] = False
        memory = remembered_by(selector, evidence, applied)
        found.append((mask, selector.utility(evidence)[0], memory))
    return found


def ranked(value):
    return np.isfinite(value) and value != -1


def rank(scores, block):
    """The share of the blocks of the group that this one beats, half of the equal ones; None: cannot."""
    group = next((group for group in GROUPS if block in group), ())
    if not group or not ranked(scores[block]):
        return None
    own = [scores[other] for other in group if ranked(scores[other])]
    beaten = sum(other < scores[block] for other in own) + sum(other == scores[block] for other in own) / 2
    return beaten / len(own)


# --- ranks -----------------------------------------------------------------------------------------


def test_ranks_are_within_the_group_and_ties_share():
    found = group_ranks(np.array([[7, 1, 4, 3, 2, 5, 5, 9, 8.0]]), LAYOUT)[0]
    np.testing.assert_allclose(found[1:5], [1 / 8, 7 / 8, 5 / 8, 3 / 8])
    np.testing.assert_allclose(found[5:8], [1 / 3, 1 / 3, 5 / 6])
    assert np.isnan(found[[0, 8]]).all(), "blocks in no group have no rank"


@examples(60)
@given(row, row)
def test_ranks_are_those_written_out_and_their_mean_is_a_half(one, other):
    table = np.array([[v if ranked(v) else np.nan for v in scores] for scores in (one, other)])
    for scores, found in zip((one, other), group_ranks(table, LAYOUT), strict=True):
        for block in range(BLOCKS):
            own = rank(scores, block)
            assert np.isnan(found[block]) if own is None else found[block] == pytest.approx(own, rel=1e-15)
        for group in GROUPS:
            own = found[list(group)]
            if (~np.isnan(own)).any():
                assert np.nanmean(own) == pytest.approx(0.5, rel=1e-12)


# --- smoothed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean_of", ["ranks", "values"])
@examples(60)
@given(table=several, decay=st.sampled_from([0.0, 0.5, 0.9, 0.99]))
def test_smoothed_is_the_weighted_mean_of_the_rounds_in_which_a_block_could_be_ranked(mean_of, table, decay):
    found = rounds_of(Smoothed(decay=decay, mean_of=mean_of), table)
    for last, (_, utility, _) in enumerate(found):
        for group in GROUPS:
            for block in group:
                numbers = [
                    rank(scores, block) if mean_of == "ranks" else scores[block]
                    for scores in table[: last + 1]
                    if ranked(scores[block])
                ]
                if not ranked(table[last][block]):
                    assert np.isnan(utility[block])
                    continue
                weights = np.array([decay**age for age in range(len(numbers))][::-1])
                expected = float(np.sum(weights * np.array(numbers)) / weights.sum())
                assert utility[block] == pytest.approx(expected, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("mean_of", ["ranks", "values"])
@examples(40)
@given(table=st.lists(st.lists(st.floats(0, 1e30), min_size=BLOCKS, max_size=BLOCKS), min_size=1, max_size=4))
def test_without_decay_smoothed_chooses_like_fedtlu(mean_of, table):
    for scores, (mask, _, _) in zip(table, rounds_of(Smoothed(decay=0, mean_of=mean_of), table), strict=True):
        plain = FedTLU().choose(evidence_of(scores, 1, {}), ServerRoom(LAYOUT, (2, 1)))[0]
        assert mask.tolist() == plain.tolist()


def test_a_round_of_large_values_decides_a_mean_of_values_and_not_one_of_ranks():
    quiet, loud = [0, 1, 2, 3, 4, 1, 2, 3, 0], [0, 9e9, 2e9, 3e9, 4e9, 1, 2, 3, 0]
    table = [quiet, quiet, loud, quiet, quiet, quiet]
    ranks = [mask.nonzero()[0].tolist() for mask, *_ in rounds_of(Smoothed(), table, (1, 1))]
    values = [mask.nonzero()[0].tolist() for mask, *_ in rounds_of(Smoothed(mean_of="values"), table, (1, 1))]
    assert ranks == [[4, 7]] * 6
    assert values == [[4, 7]] * 2 + [[1, 7]] * 4


def test_a_block_that_cannot_be_ranked_comes_last_and_keeps_its_mean():
    best, lost = [0, 1, 2, 3, 9, 3, 2, 1, 0], [0, 1, 2, 3, -1, 3, 2, 1, 0]
    masks, _, memories = zip(*rounds_of(Smoothed(), [best, lost, best], (1, 1)), strict=True)
    assert [mask.nonzero()[0].tolist() for mask in masks] == [[4, 5], [3, 5], [4, 5]]
    for name in ("total", "weight"):
        assert memories[0][name][4] == memories[1][name][4]


# --- coverage --------------------------------------------------------------------------------------


@examples(60)
@given(table=several, exploration=st.sampled_from([0.0, 0.5, 3.0]), lost=st.sampled_from([(), (2,), (1, 6)]))
def test_coverage_is_the_mean_rank_and_the_bonus_written_out(table, exploration, lost):
    found = rounds_of(Coverage(exploration=exploration), table, lost=lost)
    for last, (_, utility, _) in enumerate(found):
        for group in GROUPS:
            for block in group:
                if not ranked(table[last][block]):
                    assert np.isnan(utility[block])
                    continue
                ranks = [rank(scores, block) for scores in table[: last + 1] if ranked(scores[block])]
                applied = 0 if block in lost else sum(bool(mask[block]) for mask, *_ in found[:last])
                bonus = exploration * np.sqrt(np.log(last + 1) / (applied + 1))
                assert utility[block] == pytest.approx(np.mean(ranks) + bonus, rel=1e-12)


@pytest.mark.parametrize(("exploration", "times"), [(1.0, 1), (2.0, 1), (4.0, 2)])
@examples(12)
@given(order=st.permutations(range(4)), quotas=st.tuples(st.integers(1, 3), st.integers(1, 2)))
def test_with_exploration_every_block_is_applied_again_and_again(exploration, times, order, quotas):
    """With a score that is always the same.

    While a block was applied n times, its mean rank is behind by at most d = 1 - 1/4, and it has the
    advantage exploration * sqrt(log(t + 1)) * (1 / sqrt(n + 1) - 1 / sqrt(n + 2)) over one that was applied
    more often. From where this is above d, blocks that were applied n times or less come first; in
    each round one of them is, so that they are used up within so many rounds as there are such turns.
    """
    scores = [0, *order, 0, 1, 2, 0]
    step = 1 / np.sqrt(times) - 1 / np.sqrt(times + 1)
    bound = int(np.exp((0.75 / (exploration * step)) ** 2)) + 4 * times
    masks = [mask for mask, *_ in rounds_of(Coverage(exploration=exploration), [scores] * bound, quotas)]
    assert (np.sum(masks, axis=0)[1:8] >= times).all()


@pytest.mark.parametrize(
    ("blocks", "quota", "exploration", "first"),
    [(4, 1, 2.0, 5), (4, 1, 1.0, 8), (4, 1, 0.5, 32), (12, 2, 2.0, 7), (12, 2, 1.0, 13), (12, 2, 0.5, 64)],
)
def test_the_worst_block_waits_as_long_as_the_docstring_says(blocks, quota, exploration, first):
    layout = ParameterLayout.from_shapes({f"h.{index}.weight": (2,) for index in range(blocks)})
    made, memory, scores = Coverage(exploration=exploration), {}, -np.arange(blocks, dtype=np.float64) - 9
    for index in range(1, first + 1):
        evidence = Evidence(layout, {"excess": scores[None]}, generator(0, "x"), round=index, memory=memory)
        mask = made.choose(evidence, ServerRoom(layout, (quota,)))[0]
        assert mask[-1] == (index == first)
        memory = remembered_by(made, evidence, mask)


def test_without_exploration_the_same_score_applies_the_same_blocks_for_ever():
    scores = [0, 1, 2, 3, 4, 3, 2, 1, 0]
    masks = [mask for mask, *_ in rounds_of(Coverage(exploration=0), [scores] * 50, (1, 1))]
    assert np.sum(masks, axis=0).tolist() == [0, 0, 0, 0, 50, 50, 0, 0, 0]


@examples(30)
@given(table=several)
def test_without_exploration_coverage_ranks_by_the_mean_of_all_rounds_alike(table):
    """As a mean that hardly decays."""
    mean = rounds_of(Coverage(exploration=0), table)
    for (_, one, _), (_, other, _) in zip(mean, rounds_of(Smoothed(decay=1 - 1e-12), table), strict=True):
        np.testing.assert_allclose(one[1:8], other[1:8], rtol=1e-3)


# --- both ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [Smoothed(), Smoothed(mean_of="values"), Coverage()])
def test_the_memory_is_small_and_what_was_given_stays_as_it_is(made):
    found = rounds_of(made, [[0, 1, 2, 3, 4, 3, 2, 1, 0]] * 3)
    assert all(tensor.shape == (BLOCKS,) for _, _, memory in found for tensor in memory.values())
    kept = {name: tensor.clone() for name, tensor in found[1][2].items()}
    evidence = evidence_of([0, 9, 2, 3, 4, 3, 2, 1, 0], 3, found[1][2])
    made.choose(evidence, ServerRoom(LAYOUT, (1, 1)))
    remembered_by(made, evidence, np.ones(BLOCKS, np.bool_))
    assert all(tensor.equal(kept[name]) for name, tensor in found[1][2].items())


def test_they_need_what_their_metric_needs():
    assert Smoothed().needs == Coverage().needs == ("excess",)
    for made in (Smoothed, Coverage):
        assert made("l2_per_parameter").aggregate_only
        assert not made("agreement").aggregate_only
        assert replace(made(), pooling="pooled").pooling == "pooled"
        with pytest.raises(InputError, match="Did you mean excess"):
            made("exces")
    for wrong, field in ((lambda: Smoothed(decay=1), "decay"), (lambda: Smoothed(mean_of="sums"), "mean_of")):
        with pytest.raises(InputError, match=field):
            wrong()
    with pytest.raises(InputError, match="exploration"):
        Coverage(exploration=-0.1)
