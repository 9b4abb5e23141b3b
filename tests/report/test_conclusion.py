"""The sentence on a comparison says what its numbers say, and how surely.

Gains by hand: random ends at 100 with every seed, so that a perplexity of 90 is a gain of 10%. Student's t
(two-sided, 95%) is 12.706 for 2 seeds, 4.303 for 3.
"""

import re
from collections.abc import Sequence
from math import sqrt
from statistics import mean, stdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast.report.conclusion import conclusion
from fedtlu_fast.runs.results import ArmResult

FIGURES = {
    "perplexity": {"better": "lower", "title": "perplexity", "percent": False},
    "accuracy": {"better": "higher", "title": "accuracy", "percent": True},
    "error": {"better": "lower", "title": "error", "percent": True},
    "rouge": {"better": "higher", "title": "ROUGE", "percent": False},
}
ALL, SOME = 1.0, 0.4
"""Which share of the parameters an arm updates."""


def arms(
    name: str,
    *ends: float | None,
    share: float | None = SOME,
    headline: str = "perplexity",
    reference: bool = False,
    clients: bool = False,
    **facts: Any,
) -> list[ArmResult]:
    """The runs of an arm, one for each seed; None for a seed that diverged. Facts are those of summaries."""
    found = []
    for seed, end in enumerate(ends):
        summary: dict[str, Any] = {"headline": headline, "figures": FIGURES, "seed": seed}
        summary |= {"updated_share": share, f"test_{headline}": end}
        summary |= {"selector": name.partition(":")[0]} | facts
        chosen: list[dict[str, Any]] = [{"round": 2, "client_blocks": [[0]]}] if clients else []
        rows = [{"round": 1, "warmup": True}, {"round": 2, "warmup": reference}]
        found.append(ArmResult(name, seed, summary, rows, chosen))
    return found


def three(*middles: float) -> Sequence[float]:
    """Three seeds around each of these numbers: gains differ by 1 from seed to seed, with a reach of 2.48."""
    return [middle + step for middle in middles for step in (-1, 0, 1)]


RANDOM = arms("random", 100, 100, 100)
CASES = {
    "clearly better, and one that is not": (
        arms("full", *three(80), share=ALL) + arms("fedtlu", *three(99)) + RANDOM + arms("last", *three(110)),
        "full has the lowest perplexity, 80.00 in the mean of 3 seeds, 20.00% below random "
        "(lower in all 3 seeds, 95% interval 17.52 to 22.48%); of those that update less, fedtlu is best, "
        "1.00% below random (lower in 2 of 3 seeds, and the 95% interval includes 0); "
        "fedtlu cannot be told from random with 3 seeds.",
    ),
    "random is the best of those that update less": (
        arms("full", 80, share=ALL) + arms("fedtlu", 101) + arms("random", 100),
        "full has the lowest perplexity, 80.00, 20.00% below random; of those that update less, "
        "random is best; one seed shows no spread, so that all this may be chance.",
    ),
    "those that cannot be told from random": (
        arms("first", *three(80)) + arms("fedtlu", *three(99)) + arms("votes", *three(101)) + RANDOM,
        "first has the lowest perplexity, 80.00 in the mean of 3 seeds, 20.00% below random "
        "(lower in all 3 seeds, 95% interval 17.52 to 22.48%); "
        "fedtlu and votes cannot be told from random with 3 seeds.",
    ),
    "two seeds that agree do not exclude chance": (
        arms("full", 92, 90) + arms("random", 100, 100),
        "full has the lowest perplexity, 91.00 in the mean of 2 seeds, 9.00% below random "
        "(lower in both seeds, but the 95% interval includes 0); "
        "no arm can be told from random with 2 seeds.",
    ),
    "one seed": (
        arms("fedtlu", 90) + arms("random", 100),
        "fedtlu has the lowest perplexity, 90.00, 10.00% below random; "
        "one seed shows no spread, so that all this may be chance.",
    ),
    "random is best": (
        RANDOM + arms("fedtlu", *three(101)) + arms("last", *three(120)),
        "random has the lowest perplexity, 100.00 in the mean of 3 seeds, so that no arm did better than a "
        "random choice; fedtlu cannot be told from random with 3 seeds.",
    ),
    "without random, the next": (
        arms("full", 50, 50.5) + arms("first", 100, 100) + arms("last", 300, 300),
        "full has the lowest perplexity, 50.25 in the mean of 2 seeds, 49.75% below the next, first "
        "(lower in both seeds, 95% interval 46.57 to 52.93%).",
    ),
    "an arm that diverged is not the best": (
        arms("fedtlu", 10, None) + arms("full", 90, 90) + arms("random", 100, 102),
        "full has the lowest perplexity, 90.00 in the mean of 2 seeds, 10.88% below random "
        "(lower in both seeds, but the 95% interval includes 0); "
        "full cannot be told from random with 2 seeds; fedtlu reached no finite perplexity with every seed.",
    ),
    "random diverged": (
        arms("full", 90) + arms("random", None),
        "full has the lowest perplexity, 90.00; random reached no finite perplexity.",
    ),
    "all diverged": (
        arms("a", None, 5) + arms("b", None, None),
        "No arm reached a finite perplexity with every seed.",
    ),
    "the only one diverged": (arms("a", None), "No arm reached a finite perplexity."),
    "arms that are the same": (
        arms("first", 80) + arms("signal", 80) + arms("random", 100),
        "first and signal have the lowest perplexity, 80.00, 20.00% below random; "
        "one seed shows no spread, so that all this may be chance.",
    ),
    "one arm": (arms("full", 9.0), "full has the lowest perplexity, 9.00."),
    "accuracy, in points": (
        arms("fedtlu", 0.8, headline="accuracy") + arms("random", 0.5, headline="accuracy"),
        "fedtlu has the highest accuracy, 80.00%, 30.00 points above random; "
        "one seed shows no spread, so that all this may be chance.",
    ),
    "clients choose: points over random within the budget": (
        arms("top@2", 0.8, 0.82, headline="accuracy", clients=True)
        + arms("random@2", 0.5, 0.5, headline="accuracy", clients=True)
        + arms("top@1", 0.7, 0.72, headline="accuracy", clients=True)
        + arms("random@1", 0.71, 0.71, headline="accuracy", clients=True),
        "top@2 has the highest accuracy, 81.00% in the mean of 2 seeds, 31.00 points above random@2 "
        "(higher in both seeds, 95% interval 18.29 to 43.71 points); "
        "top@1 cannot be told from random with 2 seeds.",
    ),
    "references take no part": (
        arms("zero_shot", 1.0, reference=True) + arms("full", 90) + arms("random", 100),
        "full has the lowest perplexity, 90.00, 10.00% below random; "
        "one seed shows no spread, so that all this may be chance.",
    ),
    "nothing but warm-up": (
        arms("full", 90, reference=True) + arms("random", 90, reference=True),
        "No round came after the warm-up, so that no arm has chosen anything.",
    ),
    "many arms": (
        arms("best", *three(50)) + RANDOM + [run for at in range(6) for run in arms(f"a{at}", *three(100))],
        "best has the lowest perplexity, 50.00 in the mean of 3 seeds, 50.00% below random "
        "(lower in all 3 seeds, 95% interval 47.52 to 52.48%); "
        "a0, a1, a2, a3 and 2 more cannot be told from random with 3 seeds.",
    ),
    "a seed of random is missing": (
        arms("random", 10, None) + arms("fedtlu", 9, 8),
        "fedtlu has the lowest perplexity, 8.50 in the mean of 2 seeds, 10.00% below random "
        "in the 1 seed of 2 that can be compared; no arm can be told from random with 1 seed; "
        "random reached no finite perplexity with every seed.",
    ),
    "one of three seeds of random is missing": (
        arms("random", 100, 100, None) + arms("fedtlu", 50, 50.5, 51),
        "fedtlu has the lowest perplexity, 50.50 in the mean of 3 seeds, 49.75% below random "
        "in the 2 seeds of 3 that can be compared (lower in both seeds, 95% interval 46.57 to 52.93%); "
        "random reached no finite perplexity with every seed.",
    ),
    "an arm ran with fewer seeds": (
        arms("fedtlu", 90, 90) + arms("full", 80, share=ALL) + arms("random", 100, 100),
        "full has the lowest perplexity, 80.00 in 1 of 2 seeds, 20.00% below random "
        "in the 1 seed of 2 that can be compared; of those that update less, fedtlu is best, "
        "10.00% below random (lower in both seeds, 95% interval 10.00 to 10.00%); "
        "full cannot be told from random with 1 seed.",
    ),
    "arms are open with different numbers of seeds": (
        arms("fedtlu", *three(99)) + arms("last", 100, 101) + RANDOM,
        "fedtlu has the lowest perplexity, 99.00 in the mean of 3 seeds, 1.00% below random "
        "(lower in 2 of 3 seeds, and the 95% interval includes 0); "
        "no arm can be told from random with 2 to 3 seeds.",
    ),
    "random has an accuracy of 0 with a seed, and no seed is dropped": (
        arms("fedtlu", 0.1, 0.3, headline="accuracy") + arms("random", 0.0, 0.2, headline="accuracy"),
        "fedtlu has the highest accuracy, 20.00% in the mean of 2 seeds, 10.00 points above random "
        "(higher in both seeds, 95% interval 10.00 to 10.00 points).",
    ),
    "without points, a seed in which random has 0 is not compared": (
        arms("fedtlu", 0.1, 0.3, headline="rouge") + arms("random", 0.0, 0.2, headline="rouge"),
        "fedtlu has the highest ROUGE, 0.2 in the mean of 2 seeds, 50.00% above random "
        "in the 1 seed of 2 that can be compared; no arm can be told from random with 1 seed.",
    ),
    "points of accuracy, not per cent": (
        arms("full", 0.4567, headline="accuracy") + arms("random", 0.3918, headline="accuracy"),
        "full has the highest accuracy, 45.67%, 6.49 points above random; "
        "one seed shows no spread, so that all this may be chance.",
    ),
    "points of which fewer are better": (
        arms("fedtlu", 0.4, headline="error") + arms("random", 0.5, headline="error"),
        "fedtlu has the lowest error, 40%, 10.00 points below random; "
        "one seed shows no spread, so that all this may be chance.",
    ),
    "the best of those that update less is open too": (
        arms("full", 80, 80, share=ALL) + arms("fedtlu:signal", 99, 100.5) + arms("fedtlu", 99, 101)
        + arms("random", 100, 100),
        "full has the lowest perplexity, 80.00 in the mean of 2 seeds, 20.00% below random "
        "(lower in both seeds, 95% interval 20.00 to 20.00%); of those that update less, fedtlu:signal "
        "is best, 0.25% below random (lower in 1 of 2 seeds, and the 95% interval includes 0); "
        "fedtlu:signal and fedtlu cannot be told from random with 2 seeds.",
    ),
    "an oracle is best": (
        arms("oracle", 70) + arms("fedtlu", 90) + arms("random", 100),
        "oracle, which looks at held-out samples, has the lowest perplexity, 70.00, 30.00% below random; "
        "of those that do not look at any, fedtlu is best, 10.00% below random; "
        "one seed shows no spread, so that all this may be chance.",
    ),
    "an oracle is the best of those that update less": (
        arms("full", 60, share=ALL) + arms("fedtlu:benefit", 70, metric="benefit") + arms("fedtlu", 90)
        + arms("random", 100),
        "full has the lowest perplexity, 60.00, 40.00% below random; of those that update less, "
        "fedtlu:benefit, which looks at held-out samples, is best, 30.00% below random; "
        "of those that do not look at any, fedtlu is best, 10.00% below random; "
        "one seed shows no spread, so that all this may be chance.",
    ),
    "an oracle is better than an arm that updates everything": (
        arms("oracle", 50) + arms("full", 60, share=ALL) + arms("fedtlu", 90) + arms("random", 100),
        "oracle, which looks at held-out samples, has the lowest perplexity, 50.00, 50.00% below random; "
        "of those that do not look at any, full is best, 40.00% below random; "
        "of those that update less, fedtlu is best, 10.00% below random; "
        "one seed shows no spread, so that all this may be chance.",
    ),
    "an oracle ends as another arm": (
        arms("oracle", 80) + arms("first", 80) + arms("random", 100),
        "oracle (looks at held-out samples) and first have the lowest perplexity, 80.00, "
        "20.00% below random; one seed shows no spread, so that all this may be chance.",
    ),
    "an oracle is the only arm": (
        arms("oracle", 80),
        "oracle, which looks at held-out samples, has the lowest perplexity, 80.00.",
    ),
    "a random arm that records more": (
        arms("fedtlu+data.source=hf:a@b", 90) + arms("random+evaluation.benefit=true", 100),
        "fedtlu+data.source=hf:a@b has the lowest perplexity, 90.00, "
        "10.00% below random+evaluation.benefit=true; "
        "one seed shows no spread, so that all this may be chance.",
    ),
    "a random arm that records more is best": (
        arms("fedtlu", 110) + arms("random+evaluation.benefit=true", 100),
        "random+evaluation.benefit=true has the lowest perplexity, 100.00, so that no arm did better than a "
        "random choice; one seed shows no spread, so that all this may be chance.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("found", "said"), CASES.values(), ids=CASES.keys())
def test_the_sentence(found: list[ArmResult], said: str) -> None:
    assert conclusion(found) == said


PERPLEXITY = st.floats(1.0, 1e4)


@examples(60)
@given(st.lists(st.tuples(PERPLEXITY, PERPLEXITY), min_size=2, max_size=6))
def test_an_arm_is_open_if_and_only_if_the_interval_of_its_gain_includes_zero(
    pairs: list[tuple[float, float]],
) -> None:
    own, base = zip(*pairs, strict=True)
    said = conclusion(arms("best", *[0.5] * len(pairs)) + arms("mine", *own) + arms("random", *base))
    gains = [100 * (its - mine) / its for mine, its in pairs]
    quantile = (12.7062, 4.30265, 3.18245, 2.77645, 2.57058)[len(pairs) - 2]
    reach = quantile * stdev(gains) / sqrt(len(gains))
    if abs(abs(mean(gains)) - reach) > 1e-3 * (1 + reach):
        told = re.search("mine cannot be told from random|no arm can be told from random", said)
        assert bool(told) == (abs(mean(gains)) <= reach)
    assert said.count(".\n") == 0
    assert re.search(r"\.$", said)
    assert not re.search(r"\. ", said), "one sentence"
