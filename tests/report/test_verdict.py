"""The sentence on top of a page says what the numbers say, and no more."""

from typing import Any

import pytest

from fedtlu_fast.report.verdict import comparison_sentence, experiment_sentence, run_sentence
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


def test_the_best_arm_and_the_gain_with_its_interval_are_named() -> None:
    clear = [arm("fedtlu", s, 80.0 + s) for s in range(3)] + [arm("random", s, 100.0 + s) for s in range(3)]
    said = comparison_sentence(clear)
    assert said.startswith(
        "The best perplexity is 81.00 (mean of 3 seeds), by fedtlu. fedtlu is 19.80% better than"
    )
    assert said.endswith("3 seeds).")
    unclear = [
        arm("fedtlu", 0, 90.0),
        arm("fedtlu", 1, 110.0),
        arm("random", 0, 100.0),
        arm("random", 1, 100.0),
    ]
    assert comparison_sentence(unclear).endswith("2 seeds): too close to call.")


def test_one_seed_is_called_one_seed() -> None:
    said = comparison_sentence([arm("fedtlu", 0, 0.8, "accuracy"), arm("random", 0, 0.5, "accuracy")])
    assert said == (
        "The best accuracy is 80.00%, by fedtlu. fedtlu is 60.00% better than random. "
        "One seed does not show how much of this is chance."
    )


def test_gains_of_clients_are_over_random_within_the_budget() -> None:
    arms = [
        arm("top@2", 0, 0.6, "accuracy"),
        arm("random@2", 0, 0.5, "accuracy"),
        arm("random@1", 0, 0.1, "accuracy"),
    ]
    assert "top@2 is 20.00% better than random@2." in comparison_sentence(arms)


def test_arms_that_are_the_same_are_named_together_and_none_is_said() -> None:
    assert "by a and b." in comparison_sentence([arm("a", 0, 5.0), arm("b", 0, 5.0), arm("c", 0, 6.0)])
    assert comparison_sentence([arm("a", 0, None)]) == "No arm reached a finite perplexity."


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
