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
) -> list[ArmResult]:
    """The runs of an arm, one for each seed; None for a seed that diverged."""
    found = []
    for seed, end in enumerate(ends):
        summary: dict[str, Any] = {"headline": headline, "figures": FIGURES, "seed": seed}
        summary |= {"updated_share": share, f"test_{headline}": end}
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
        "1.00% below random (lower in 2 of 3 seeds, and the 95% interval includes 0).",
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
        "(lower in both seeds, but the 95% interval includes 0).",
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
        "fedtlu reached no finite perplexity with every seed.",
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
    "accuracy, in per cent of random's": (
        arms("fedtlu", 0.8, headline="accuracy") + arms("random", 0.5, headline="accuracy"),
        "fedtlu has the highest accuracy, 80.00%, 60.00% above random; "
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
        assert ("mine cannot be told from random" in said) == (abs(mean(gains)) <= reach)
    assert said.count(".\n") == 0
    assert re.search(r"\.$", said)
    assert not re.search(r"\. ", said), "one sentence"
