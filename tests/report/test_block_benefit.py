"""Recorded benefits: shares and taus by hand, against all orders of ties, and properties of any rows."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import t
from support.sampling import examples

from fedtlu_fast.report.aggregate.benefit_history import (
    benefit_json,
    benefit_sentences,
    block_cells,
    needs,
    score_cells,
)
from fedtlu_fast.report.aggregate.block_benefit import chances, places, run_benefit, smoothed
from fedtlu_fast.report.aggregate.score_quality import benefit_report
from fedtlu_fast.runs.as_json import dump_json

BEFORE = 4.0


def row(at, gains, scores, *, every=3.0, selected=(), warmup=False):
    """A row of selection.jsonl: gains of blocks, and the numbers of each score, by block."""
    alone = {block: BEFORE - gain for block, gain in gains.items()}
    benefit = {"before": BEFORE, "every": every, "alone": alone, "scores": scores}
    return {"round": at, "warmup": warmup, "selected": list(selected), "benefit": benefit}


def rows_of(gains, **scores):
    """Rows of blocks h.0, h.1, ...: gains and each score as [T, B]."""
    names = [f"h.{place}" for place in range(len(gains[0]))]
    return [
        row(
            at + 1,
            dict(zip(names, gains[at], strict=True)),
            {score: dict(zip(names, values[at], strict=True)) for score, values in scores.items()},
        )
        for at in range(len(gains))
    ]


def report_of(rows, keep=1, groups=None):
    blocks = {"h.*": list(rows[0]["benefit"]["alone"])} if groups is None else groups
    return benefit_report([run_benefit(rows, blocks, [keep] * len(blocks))])


def quality(report, score, group="h.*"):
    (found,) = [row for row in report.scores if (row.score, row.group) == (score, group)]
    return found


HAND = rows_of([[0.5, 0.125, 0.125], [0.0, 0.375, 0.375]], own=[[1, 3, 2], [2, 2, 1]])
"""Round 1: the score takes h.1, 1/8 below the mean of 1/4; the best is 1/4 above it. Round 2: h.0 or h.1,
with 3/16 on average, 1/16 below the mean; the best is 1/8 above it."""


def test_shares_and_taus_by_hand():
    found = quality(report_of(HAND), "own")
    assert found.share.value == pytest.approx((-1 / 8 - 1 / 16) / (1 / 4 + 1 / 8))
    first = -2 / math.sqrt(2 * 3)  # pairs: both with h.0 are reversed, the gains of the third tie
    second = -1 / math.sqrt(2 * 2)  # the scores of the first tie; h.0 and h.2 are reversed; gains tie
    assert found.tau.value == pytest.approx((first + second) / 2)
    assert found.tau.reach == pytest.approx(t.ppf(0.975, 1) * np.std([first, second], ddof=1) / math.sqrt(2))
    assert found.rounds == 2
    assert found.thirds[:2] == pytest.approx((-1 / 2, -1 / 2))
    assert found.thirds[2] is None, "two rounds are the first and the second third"
    assert quality(report_of(HAND), "first").share.value == pytest.approx(0, abs=1e-12)  # 1/4, then -1/4
    assert quality(report_of(HAND), "last").share.value == pytest.approx(0, abs=1e-12)  # -1/8, then 1/8
    two = quality(report_of(HAND, keep=2), "own")
    # Round 1: h.1 and h.2, 1/8 below the mean; the best two are 1/16 above. Round 2: 3/16 to 1/4; 3/8 to 1/4.
    assert two.share.value == pytest.approx((-1 / 8 - 1 / 16) / (1 / 16 + 1 / 8))


def test_the_interval_of_a_share_is_that_of_a_ratio_of_sums():
    draws = np.random.default_rng(0)
    gains, own = draws.normal(size=(7, 4)), draws.normal(size=(7, 4))
    found = quality(report_of(rows_of(gains.tolist(), own=own.tolist())), "own").share
    taken = gains[np.arange(7), own.argmax(axis=1)] - gains.mean(axis=1)
    best = gains.max(axis=1) - gains.mean(axis=1)
    assert found.value == pytest.approx(taken.sum() / best.sum())
    residuals = taken - taken.sum() / best.sum() * best
    error = math.sqrt((residuals**2).sum() / 6 / 7) / best.mean()
    assert found.reach == pytest.approx(t.ppf(0.975, 6) * error)


def test_blocks_and_whether_gains_add_up_by_hand():
    rows = [{**one, "selected": ["h.1"], "warmup": at == 0} for at, one in enumerate(HAND)]
    report = report_of(rows)
    assert [one.gain for one in report.blocks] == [0.25 / BEFORE, 0.25 / BEFORE, 0.25 / BEFORE]
    assert [one.best for one in report.blocks] == [0.5, 0.25, 0.25]
    assert [one.chosen for one in report.blocks] == [0, 1, 0]
    assert report.together is not None
    assert (report.together.every, report.together.singles) == (1, 0.75)
    assert "133% of that" in " ".join(benefit_sentences(report))
    assert block_cells(report)[1][0] == ["h.*", "h.0", "+6.250%", "50%", "0%"]
    early = report_of([{**one, "warmup": True} for one in rows])
    assert [one.chosen for one in early.blocks] == [None] * 3


def test_rounds_without_a_number_are_left_out_and_counted():
    rows = [*HAND, *(row(at, {"h.0": 1, "h.1": 0, "h.2": 0}, {"own": {}}) for at in range(3, 7))]
    rows[2]["benefit"]["before"] = None
    rows[3]["benefit"]["alone"]["h.2"] = None
    rows[4]["benefit"]["every"] = math.nan
    del rows[5]["benefit"]
    report = report_of(rows)
    assert (report.rounds, report.left_out) == (2, 4)
    assert quality(report, "own").share == quality(report_of(HAND), "own").share
    assert quality(report, "own").thirds[1:] == (None, None), "a third is one of all rounds"
    assert "4 more left out" in " ".join(benefit_sentences(report))
    assert run_benefit([rows[5]], {"h.*": ["h.0"]}, [1]) is None
    nothing = report_of(rows[2:5])
    assert (nothing.rounds, nothing.left_out, nothing.together) == (0, 3, None)
    assert {one.share.value for one in nothing.scores} == {None}
    for told in (score_cells(nothing), block_cells(nothing)):
        assert all(len(line) == len(told[0]) for line in told[1])


def test_a_score_that_is_no_number_comes_last():
    gains = [[1.0, 0.0, 0.0]] * 2
    one = quality(report_of(rows_of(gains, own=[[None, -5, -9], [math.nan, -5, -9]])), "own")
    assert one.share.value == pytest.approx(-1 / 2)
    none = quality(report_of(rows_of(gains, own=[[None] * 3, [3, 2, 1]])), "own")
    assert (none.rounds, none.share.value) == (1, 1), "a round without any number is one without the score"


def test_smoothing_by_hand():
    ranks = places(np.array([[3.0, 2, 1], [np.nan] * 3, [1, 2, 3], [1, 2, 3]]))
    np.testing.assert_array_equal(ranks, [[1, 0.5, 0], [np.nan] * 3, [0, 0.5, 1], [0, 0.5, 1]])
    # Sums: h.0 has 1, 0.9, 0.81; h.1 has 0.5, 0.95, 1.355; h.2 has 0, 1, 1.9.
    expected = [[1, 0.5, 0], [np.nan] * 3, [0, 0.5, 1], [0, 0.5, 1]]
    np.testing.assert_array_equal(smoothed(ranks), expected)
    steady = places(np.array([[3.0, 2, 1]] * 5 + [[1, 2, 3]]))
    assert smoothed(steady)[-1].tolist() == [1, 0.5, 0], "one round does not undo five"


def test_several_groups_count_by_their_gains():
    other = {"g.0": 1.0, "g.1": 0.0}
    rows = [
        row(1, {"h.0": 0.25, "h.1": 0.0, **other}, {"own": {"h.0": 0, "h.1": 1, "g.0": 1, "g.1": 0}}),
    ]
    report = report_of(rows, groups={"h.*": ["h.0", "h.1"], "g.*": ["g.0", "g.1"]})
    assert quality(report, "own").share.value == -1
    assert quality(report, "own", "g.*").share.value == 1
    whole = quality(report, "own", None)
    assert whole.share.value == (1 / 2 - 1 / 8) / (1 / 2 + 1 / 8)
    assert (whole.tau.value, whole.tau.reach) == (0, None)
    heads, cells = score_cells(report)
    assert [line[0] for line in cells if line[1] == "own"] == [
        "h.*, best 1 of 2",
        "g.*, best 1 of 2",
        "all groups",
    ]
    assert len(heads) == len(cells[0])
    many = {f"{letter}.*": [f"{letter}.0", f"{letter}.1"] for letter in "abcd"}
    wide = [row(1, {block: 0.5 for blocks in many.values() for block in blocks}, {})]
    assert {line[0] for line in score_cells(report_of(wide, groups=many))[1]} == {"all groups"}


def test_several_runs_are_one_sum_and_intervals_are_over_runs():
    groups = {"h.*": ["h.0", "h.1", "h.2"]}
    low = rows_of([[0.5, 0.0, 0.25]] * 3, own=[[0, 1, 2]] * 3)  # takes 0, the best takes 1/4 a round
    high = rows_of([[1.0, 0.0, 0.5]], own=[[2, 0, 1]], other=[[0, 1, 2]])  # takes 1/2 of 1/2
    two, report = (
        benefit_report([run_benefit(rows, groups, [1]) for rows in runs])
        for runs in ((low, high), (low, high, high))
    )
    found = quality(report, "own")
    assert (report.runs, report.rounds, found.rounds) == (3, 5, 5)
    share = (0.5 + 0.5) / (0.75 + 0.5 + 0.5)
    assert found.share.value == pytest.approx(share)
    residuals = np.array([0 - share * 0.75, *[0.5 - share * 0.5] * 2])
    assert found.share.reach == pytest.approx(
        t.ppf(0.975, 2) * residuals.std(ddof=1) * math.sqrt(3) / (0.75 + 0.5 + 0.5)
    )
    assert found.tau.value == pytest.approx((-1 / 3 + 1 + 1) / 3), "a mean over runs"
    assert (quality(report, "other").rounds, quality(report, "other").share.reach) == (2, None), "two runs"
    assert "intervals are over runs" in " ".join(benefit_sentences(report))
    assert (quality(two, "own").share.reach, quality(two, "own").tau.reach) == (None, None)
    assert "2 runs, 4 rounds; too few runs for an interval." in benefit_sentences(two)


@pytest.mark.parametrize(
    ("gain", "every", "told"),
    [
        (
            0.25,
            0.75,
            "add up to 0.5 nats a round; with every block applied the loss falls by 0.75 nats, 150% of "
            "that. That is more than the sum: blocks help each other.",
        ),
        (0.25, 0.25, "falls by 0.25 nats, 50% of that. That is less than the sum: blocks do the same work."),
        (0.25, 0.5, "falls by 0.5 nats, 100% of that."),
        (0.25, -0.75, "rises by 0.75 nats. Together, blocks undo what they gain alone."),
        (
            -0.25,
            -0.75,
            "add up to -0.5 nats a round; with every block applied the loss rises by 0.75 nats. "
            "Blocks do harm.",
        ),
        (-0.25, 0.25, "falls by 0.25 nats. That is more than the sum: blocks help each other."),
        (-0.25, 0.0, "falls by 0 nats. That is more than the sum: blocks help each other."),
    ],
)
def test_one_reading_of_whether_gains_add_up(gain, every, told):
    report = report_of([row(1, {"h.0": gain, "h.1": gain}, {}, every=BEFORE - every)])
    assert benefit_sentences(report)[-1].endswith(told)


def test_what_a_score_needs():
    assert needs("excess, pooled, smoothed") == "aggregate"
    assert needs("agreement") == "clients"
    assert needs("support.own_selectors:apart, pooled") == "clients"
    assert needs("held_out") == "held-out samples", "a fact is its own need"
    assert needs("first") == "nothing"
    assert needs("of_another_version") == needs("gone.away:score, pooled") == "?"


def test_tables_and_json_hold_every_score():
    report = report_of(HAND)
    lines = {line[1]: line for line in score_cells(report)[1]}
    assert set(lines) == {"own", "own, smoothed", "first", "last"}
    assert list(lines)[-1] == "own", "the best first; the others take 0"
    assert lines["first"][3].startswith("0% ± ")
    assert lines["own"][3].startswith("-50% ± ")
    told = benefit_json(report)
    assert {row["score"]: row["needs"] for row in told["scores"]} == {
        "own": "?",
        "own, smoothed": "?",
        "first": "nothing",
        "last": "nothing",
    }
    assert told["keep"] == {"h.*": 1}
    dump_json(told)


SMALL = st.integers(-3, 3)


@st.composite
def tables(draw):
    """Gains and scores, [T, B], with ties; and how many blocks are kept."""
    blocks, rounds = draw(st.integers(2, 5)), draw(st.integers(1, 5))
    line = st.lists(SMALL, min_size=blocks, max_size=blocks)
    gains, scores = (draw(st.lists(line, min_size=rounds, max_size=rounds)) for _ in range(2))
    return [[gain / 8 for gain in own] for own in gains], scores, draw(st.integers(1, blocks))


@examples(100)
@given(tables())
def test_ties_count_with_the_mean_over_all_orders(table):
    gains, scores, keep = table
    for own, by in zip(gains, scores, strict=True):
        orders = list(permutations(range(len(own))))
        counts = np.zeros(len(own))
        for order in orders:
            counts[sorted(order, key=lambda place: -by[place])[:keep]] += 1
        np.testing.assert_allclose(chances(np.array([by], float), keep)[0], counts / len(orders), atol=1e-12)


@examples(100)
@given(tables())
def test_the_gain_itself_is_perfect_and_a_constant_says_nothing(table):
    gains, _, keep = table
    report = report_of(rows_of(gains, gain=gains, same=[[2.5] * len(own) for own in gains]), keep)
    perfect, same = quality(report, "gain"), quality(report, "same")
    told = any(len(set(own)) > 1 for own in gains)
    decided = told and keep < len(gains[0])
    assert perfect.share.value == (1 if decided else None)
    assert perfect.tau.value == (1 if told else None)
    assert same.share.value == (0 if decided else None)
    assert same.tau.value is None
    assert quality(report, "same, smoothed").share == same.share


@examples(60)
@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_blocks_does_not_count(table, draws):
    gains, scores, keep = table
    order = draws.sample(range(len(gains[0])), len(gains[0]))
    mixed = [[[own[place] for place in order] for own in part] for part in (gains, scores)]
    one, other = (report_of(rows_of(own, own=by), keep) for own, by in ((gains, scores), mixed))
    for score in ("own", "own, smoothed"):
        found, again = quality(one, score), quality(other, score)
        for first, second in ((found.share, again.share), (found.tau, again.tau)):
            assert (first.value is None) == (second.value is None)
            assert first.value is None or first.value == pytest.approx(second.value, abs=1e-12)


@examples(60)
@given(tables())
def test_no_score_is_better_than_the_gain_and_none_worse_than_its_opposite(table):
    gains, scores, keep = table
    opposite = [[-gain for gain in own] for own in gains]
    report = report_of(rows_of(gains, own=scores, worst=opposite), keep)
    share, worst = quality(report, "own").share.value, quality(report, "worst").share.value
    assume(share is not None)
    assert worst - 1e-12 <= share <= 1 + 1e-12
