"""Where the rounds' time went: seconds by stage, and the share that scoring took."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from fedtlu_fast.runs.results import ArmResult, ConditionResult

STAGES = ("probe", "train", "aggregate", "score", "select", "apply")
"""Of every round, in this order; ``evaluate`` comes on top in rounds that test."""
HEADS = ("aggregator", "threat", "selector", *STAGES, "evaluate", "scoring, %")


def stage_rows(results: Sequence[ConditionResult]) -> list[dict[str, Any]]:
    """One row for each condition and selector: mean seconds a round, over all rounds of its arms.

    ``score_share_pct`` is scoring's share of a round without its tests, in per cent. Arms run beside each
    other and share cores, so that seconds compare within a machine and a number of jobs only. Rounds whose
    readings were lost are left out, and so are selectors whose arms left no timings.
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
    """The table as people read it, in milliseconds; see `HEADS`."""
    return [
        [
            *(row[key] for key in ("aggregator", "threat", "selector")),
            *(f"{1e3 * row[stage]:,.2f}" for stage in (*STAGES, "evaluate")),
            "" if row["score_share_pct"] is None else f"{row['score_share_pct']:.2f}",
        ]
        for row in rows
    ]


def scoring_told(rows: Sequence[dict[str, Any]]) -> str:
    """One sentence on what scoring costs."""
    shares = [row["score_share_pct"] for row in rows if row["score_share_pct"] is not None]
    if not shares:
        return "No timings were left."
    return f"Scoring took {min(shares):.2f} to {max(shares):.2f}% of a round without its tests."


def _timed(arms: Sequence[ArmResult]) -> list[dict[str, Any]]:
    """Rows of the rounds whose readings were not lost."""
    return [row for arm in arms for row in arm.timings if row.keys() > {"round"}]


def _means(arms: Sequence[ArmResult]) -> dict[str, float] | None:
    rounds = _timed(arms)
    if not rounds:
        return None
    return {stage: mean(row.get(stage, 0.0) for row in rounds) for stage in (*STAGES, "evaluate")}
