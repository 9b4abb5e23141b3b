"""Score against benefit: rounds of random choices, and nothing else, are compared."""

import random

import pytest

from fedtlu_fast.report.aggregate.benefit import score_benefit
from fedtlu_fast.report.sections.benefit import benefit_chart
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.tasks.metrics import PERPLEXITY

BLOCKS = [f"h.{at}" for at in range(5)]


def arm(selector: str, *, connected: bool, rounds: int = 40, seed: int = 0) -> ArmResult:
    """A run that updates one random block a round; if `connected`, its score decides how much that helps."""
    draws = random.Random(seed)
    value, metrics, selection = 100.0, [], []
    for at in range(1, rounds + 1):
        scores = {block: draws.random() for block in BLOCKS}
        chosen = draws.choice(BLOCKS)
        rank = sorted(scores, key=lambda block: scores[block]).index(chosen)
        value *= 1 - 0.01 * (1 + (rank if connected else draws.random()))
        metrics.append({"round": at, "test_perplexity": value})
        selection.append({"round": at, "warmup": at == 1, "selected": [chosen], "block_scores": scores})
    return ArmResult(selector, seed, {"groups": {"h.*": BLOCKS}, "headline": None}, metrics, selection)


def test_a_connection_is_found_where_there_is_one() -> None:
    found = score_benefit([arm("random", connected=True)], PERPLEXITY)
    assert found is not None
    assert found.tau > 0.6
    assert found.chance < 1e-6
    assert set(found.standing) == {0, 0.25, 0.5, 0.75, 1}
    assert 1 not in found.rounds, "the warm-up updates every block"
    chart = benefit_chart([arm("random", connected=True)], PERPLEXITY)
    assert chart is not None
    assert "rounds that updated higher-scored blocks helped more" in chart.note


def test_none_is_found_where_there_is_none() -> None:
    chart = benefit_chart([arm("random", connected=False)], PERPLEXITY)
    assert chart is not None
    assert "no connection can be told" in chart.note


@pytest.mark.parametrize("selector", ["fedtlu", "last"])
def test_choices_that_follow_a_rule_say_nothing(selector: str) -> None:
    assert score_benefit([arm(selector, connected=True)], PERPLEXITY) is None


def test_few_rounds_and_missing_tests_say_nothing() -> None:
    assert score_benefit([arm("random", connected=True, rounds=6)], PERPLEXITY) is None
    sparse = arm("random", connected=True)
    for row in sparse.metrics:
        if row["round"] % 2:
            row["test_perplexity"] = None
    assert score_benefit([sparse], PERPLEXITY) is None
