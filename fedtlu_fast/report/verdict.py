"""The sentence at the top of a page: what came out, and how far it can be told from chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from fedtlu_fast.report.aggregate.experiment import paired_interval
from fedtlu_fast.report.arms import BASELINE, arm_names, baseline_of, is_reference, selector_of
from fedtlu_fast.report.columns import column_of
from fedtlu_fast.report.headline import headline_of, headline_of_arms
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


def comparison_sentence(results: Sequence[ArmResult]) -> str:
    """Says which arm reached the best headline, and how the first arm did beside the random choice."""
    headline = headline_of_arms(results)
    means = {}
    for name in arm_names(results):
        own = [r for r in _reached(results, headline) if r.selector == name and not is_reference(r)]
        values = [r.summary[headline.column] for r in own]
        if values:
            means[name] = mean(values)
    if not means:
        return f"No arm reached a finite {headline.title}."
    seeds = len({result.seed for result in results})
    pick = min if headline.better == "lower" else max
    best = pick(means, key=lambda name: means[name])
    equal = [name for name in means if means[name] == means[best]]
    over = "" if seeds == 1 else f" (mean of {seeds} seeds)"
    text = f"The best {headline.title} is {said_of(headline, means[best])}{over}, by {_listed(equal)}."
    first = next((name for name in means if selector_of(name) != BASELINE), None)
    gains = [] if first is None else paired_gains(results, first, headline)
    if first is not None and gains:
        text += f" {_gain_words(first, gains, headline)}"
    return text if seeds > 1 else f"{text} {ONE_SEED}"


def paired_gains(results: Sequence[ArmResult], name: str, headline: Figure) -> list[float]:
    """Returns how much better an arm's headline is than the random choice's, seed by seed, in per cent."""
    own, base = (
        {r.seed: float(r.summary[headline.column]) for r in _reached(results, headline) if r.selector == one}
        for one in (name, baseline_of(name))
    )
    gains = [headline.gain(own[seed], base[seed]) for seed in own if seed in base]
    return [gain for gain in gains if gain is not None]


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


def _reached(results: Sequence[ArmResult], headline: Figure) -> list[ArmResult]:
    """Returns the runs whose headline is a number: a model that diverged has none."""
    return [result for result in results if result.summary.get(headline.column) is not None]


def _gain_words(name: str, gains: Sequence[float], headline: Figure) -> str:
    base = baseline_of(name)
    gain = mean(gains)
    side = "better" if gain >= 0 else "worse"
    text = f"{name} is {abs(gain):.2f}% {side} than {base}"
    low, high = paired_interval(gains)
    if low is None or high is None:
        return f"{text}."
    span = f"(95% interval {low:+.2f}% to {high:+.2f}%, {len(gains)} seeds)"
    if low <= 0 <= high:
        return f"{text} {span}: too close to call."
    return f"{text} {span}."


def _listed(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"
