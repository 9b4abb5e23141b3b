"""Seconds by stage: means over rounds and arms, and scoring's share."""

import pytest

from fedtlu_fast.report.aggregate.stages import HEADS, STAGES, scoring_sentence, stage_cells, stage_rows
from fedtlu_fast.runs.results import ArmResult, ConditionResult


def timing(train, score, **more):
    return {"round": 1, "train": train, "aggregate": 0.1, "score": score, "select": 0.0, "apply": 0.1, **more}


def result(**arms):
    made = [
        ArmResult(selector, seed, {}, [], [], rounds)
        for selector, seeds in arms.items()
        for seed, rounds in enumerate(seeds)
    ]
    return ConditionResult("fedavg", "clean", made)


def test_means_are_over_all_rounds_of_a_selectors_arms():
    lost = {"round": 3}
    arms = [[timing(1.0, 0.01), timing(2.0, 0.02, evaluate=6.0), lost], [timing(6.0, 0.03)]]
    rows = stage_rows([result(fedtlu=arms, random=[[timing(0.8, 0.0)]])])
    ours, random = rows
    assert (ours["selector"], ours["rounds"], random["rounds"]) == ("fedtlu", 3, 1)
    assert [ours[stage] for stage in STAGES] == pytest.approx([0.0, 3.0, 0.1, 0.02, 0.0, 0.1])
    assert ours["evaluate"] == pytest.approx(2.0), "nothing in a round without tests"
    assert ours["score_share_pct"] == pytest.approx(100 * 0.02 / 3.22), "of a round without its tests"
    assert random["score_share_pct"] == 0
    cells = stage_cells(rows)
    assert {len(line) for line in cells} == {len(HEADS)}
    told = "fedavg clean fedtlu 0.00 3,000.00 100.00 20.00 0.00 100.00 2,000.00 0.62"
    assert cells[0] == told.split()
    assert scoring_sentence(rows) == "Scoring took 0.00 to 0.62% of a round without its tests."


def test_arms_without_timings_have_no_row_and_no_share():
    assert stage_rows([result(fedtlu=[[]], random=[[]])]) == []
    nothing = {"round": 1, **dict.fromkeys(STAGES, 0.0)}
    rows = stage_rows([result(fedtlu=[[nothing]], random=[[]])])
    assert [row["score_share_pct"] for row in rows] == [None]
    assert stage_cells(rows)[0][-1] == ""
    assert scoring_sentence(rows) == scoring_sentence([]) == "The runs have no timings."
