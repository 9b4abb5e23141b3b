"""The sentence on top of a page says what the numbers say, and no more."""

from typing import Any

import pytest

from fedtlu_fast.report.verdict import experiment_sentence, run_sentence
from fedtlu_fast.runs.results import ArmResult

FIGURES = {
    "perplexity": {"better": "lower", "title": "perplexity", "percent": False},
    "accuracy": {"better": "higher", "title": "accuracy", "percent": True},
}


def arm(
    selector: str, seed: int, value: float | None, headline: str = "perplexity", **over: Any
) -> ArmResult:
    summary = {
        "headline": headline,
        "figures": FIGURES,
        "seed": seed,
        "rounds": 4,
        "warmup_rounds": 1,
        "targeted_rounds": 3,
        "updated_share": 0.25,
        f"test_{headline}": value,
        **over,
    }
    rows = [{"round": at, "warmup": at == 1, f"test_{headline}": value} for at in range(1, 5)]
    return ArmResult(selector, seed, summary, rows, [])


def test_a_run_is_compared_with_its_start() -> None:
    assert run_sentence(arm("x", 0, 80.0, start_test_perplexity=90.0)) == (
        "After 4 rounds the perplexity of the global test is 80.00, better than 90.00 before round 1; "
        "a targeted round updated 25% of the parameters."
    )
    worse = run_sentence(arm("x", 0, 0.5, "accuracy", start_test_accuracy=0.6))
    assert "accuracy of the global test is 50.00%, not better than 60.00% before round 1" in worse


def test_a_run_that_diverged_says_so() -> None:
    said = run_sentence(arm("x", 0, None, diverged_round=3))
    assert said == "After 4 rounds the model had diverged: the global test gave no finite perplexity."


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        (
            [(1, 3), (-1, 2), (-3, -1)],
            "clearly better in 1 of 3 conditions, clearly worse in 1, not to be told apart in 1",
        ),
        ([(None, None)], "One seed does not show"),
    ],
)
def test_conditions_are_counted_by_their_intervals(spans: list[tuple[float, float]], said: str) -> None:
    rows = [
        {
            "aggregator": "fedavg",
            "threat": f"t{place}",
            "selector": "fedtlu",
            "metric": "perplexity",
            "split": "global",
            "gain_over_random_pct": 2.0 - place,
            "ci_low": low,
            "ci_high": high,
        }
        for place, (low, high) in enumerate(spans)
    ]
    found = experiment_sentence(rows)
    assert said in found
    assert "largest mean gain was +2.00% (fedavg, t0)" in found
    assert "no gain can be said" in experiment_sentence([{**rows[0], "gain_over_random_pct": None}])
