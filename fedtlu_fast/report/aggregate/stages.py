"""The time of rounds by stage, and the share of it that scoring took."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from fedtlu_fast.runs.results import ArmResult, ConditionResult

STAGES = ("probe", "train", "aggregate", "score", "select", "apply")
"""The stages of every round, in this order; a round with a test has ``evaluate`` too."""
HEADS = ("aggregator", "threat", "selector", *STAGES, "evaluate", "scoring, %")


def stage_rows(results: Sequence[ConditionResult]) -> list[dict[str, Any]]:
    """Returns a row for each condition and selector: mean seconds of a round, over all rounds of its arms.

    ``score_share_pct`` is the share of scoring in a round without its tests, in per cent. Arms run at the
    same time and share cores, so seconds can be compared only for one machine and one number of jobs. Rounds
    whose timings were lost are left out, as are selectors whose arms have no timings.
    """
    rows = []
    for result in results:
        for selector in dict.fromkeys(arm.selector for arm in result.arms):
            own = [arm for arm in result.arms if arm.selector == selector]
            seconds = _means(own)
            if seconds is None:
                continue
            row = {
                "aggregator": result.aggregator,
                "threat": result.threat,
                "selector": selector,
                "rounds": len(_timed(own)),
                **seconds,
            }
            whole = sum(seconds[stage] for stage in STAGES)
            rows.append({**row, "score_share_pct": 100 * seconds["score"] / whole if whole else None})
    return rows


def stage_cells(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Returns the cells of the table in milliseconds, formatted; the heads are `HEADS`."""
    return [
        [
            *(row[key] for key in ("aggregator", "threat", "selector")),
            *(f"{1e3 * row[stage]:,.2f}" for stage in (*STAGES, "evaluate")),
            "" if row["score_share_pct"] is None else f"{row['score_share_pct']:.2f}",
        ]
        for row in rows
    ]


def scoring_sentence(rows: Sequence[dict[str, Any]]) -> str:
    """Returns a sentence that says how much of the time scoring took."""
    shares = [row["score_share_pct"] for row in rows if row["score_share_pct"] is not None]
    if not shares:
        return "The runs have no timings."
    return f"Scoring took {min(shares):.2f} to {max(shares):.2f}% of a round without its tests."


def _timed(arms: Sequence[ArmResult]) -> list[dict[str, Any]]:
    """Returns the rows of the rounds whose timings were not lost."""
    return [row for arm in arms for row in arm.timings if row.keys() > {"round"}]


def _means(arms: Sequence[ArmResult]) -> dict[str, float] | None:
    rounds = _timed(arms)
    if not rounds:
        return None
    return {stage: mean(row.get(stage, 0.0) for row in rounds) for stage in (*STAGES, "evaluate")}
