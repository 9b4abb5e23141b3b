"""The sentence at the top of the page of a run or an experiment; `conclusion` says that of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedtlu_fast.report.columns import column_of
from fedtlu_fast.report.headline import headline_of
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.tasks.metrics import Figure

ONE_SEED = "One seed does not show how much of this is chance."


def run_sentence(run: ArmResult) -> str:
    """Says what one run reached."""
    summary = run.summary
    headline = headline_of(summary)
    rounds = int(summary["rounds"])
    end, start = summary.get(headline.column), summary.get(f"start_{headline.column}")
    after = f"After {rounds:,} round{'' if rounds == 1 else 's'}"
    if summary.get("diverged_round") is not None or end is None:
        said = "the model had diverged" if summary.get("diverged_round") is not None else "there is no figure"
        return f"{after} {said}: the global test gave no finite {headline.title}."
    text = f"{after} the {headline.title} of the global test is {said_of(headline, end)}"
    if start is not None:
        better = (end < start) == (headline.better == "lower")
        text += f", {'better' if better else 'not better'} than {said_of(headline, start)} before round 1"
    share = summary.get("updated_share")
    if share is not None and summary.get("targeted_rounds"):
        text += f"; a targeted round updated {100 * share:.3g}% of the parameters"
    return f"{text}."


def experiment_sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """Says in how many conditions the first selector clearly beat random updates.

    Args:
        rows: the rows of `experiment_rows`.
    """
    told = [row for row in rows if row["split"] == "global" and row["gain_over_random_pct"] is not None]
    if not told:
        return (
            "Without random updates beside them, no gain can be said; the table shows what each arm reached."
        )
    metric, selector = told[0]["metric"], told[0]["selector"]
    own = [row for row in told if row["metric"] == metric and row["selector"] == selector]
    best = max(own, key=lambda row: row["gain_over_random_pct"])
    where = f"{best['aggregator']}, {best['threat']}"
    largest = f"The largest mean gain was {best['gain_over_random_pct']:+.2f}% ({where})."
    if all(row["ci_low"] is None for row in own):
        return f"{selector} beside random updates, {metric} of the global test: {largest} {ONE_SEED}"
    above = sum(row["ci_low"] is not None and row["ci_low"] > 0 for row in own)
    below = sum(row["ci_high"] is not None and row["ci_high"] < 0 for row in own)
    return (
        f"{selector} beside random updates, {metric} of the global test: clearly better in {above} "
        f"of {len(own)} conditions, clearly worse in {below}, not to be told apart in "
        f"{len(own) - above - below} (95% intervals over seeds). {largest}"
    )


def said_of(headline: Figure, value: float) -> str:
    """Writes a number of a headline as tables do."""
    column = column_of(headline.column)
    if headline.percent and column.scale == 1:
        return f"{100 * value:.4g}%"
    return column.cell(value)
