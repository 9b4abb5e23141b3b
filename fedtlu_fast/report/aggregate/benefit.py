"""Score against benefit (ours): did rounds help more in which blocks with higher scores were updated?

Only runs whose blocks were drawn at random can say it: there the choice does not depend on the score, so that
a connection between the two is not the selector's own doing. The benefit of a round is how much better the
headline of the global test became, in per cent, minus the mean of the rounds around it, as every run improves
fast at first and slowly later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedtlu_fast.report.arms import BASELINE, chooses, selector_of
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.tasks.metrics import Figure

FEWEST = 8
"""The smallest number of rounds that are shown."""
AROUND = 3
"""Rounds before and after a round with which its improvement is compared."""


@dataclass(frozen=True)
class Benefit:
    """The targeted rounds of random choices.

    Attributes:
        rounds: [N], their numbers; rounds of several seeds stand one after another.
        standing: [N] in [0, 1], the mean place of the updated blocks among like blocks: 1 if they have the
            highest scores, 0 for the lowest.
        benefit: [N], points of per cent by which the round improved the headline more than those around it.
        tau: Kendall's tau-b between the two.
        chance: how probable a tau so far from 0 is if there is no connection (two-sided).
    """

    rounds: tuple[int, ...]
    standing: tuple[float, ...]
    benefit: tuple[float, ...]
    tau: float
    chance: float


def score_benefit(results: Sequence[ArmResult], headline: Figure) -> Benefit | None:
    """Computes it for all runs whose server chooses at random; None if they have too few tested rounds.

    Args:
        results: runs of any selectors.
        headline: the figure of the global test.
    """
    from scipy.stats import kendalltau  # takes half a second to import

    found: list[tuple[int, float, float]] = []
    for result in results:
        if selector_of(result.selector) == BASELINE and not chooses(result):
            found += _rounds(result, headline)
    if len(found) < FEWEST:
        return None
    rounds, standing, benefit = zip(*found, strict=True)
    if len(set(standing)) < 2 or len(set(benefit)) < 2:
        return None
    tested = kendalltau(standing, benefit)
    return Benefit(rounds, standing, benefit, float(tested.statistic), float(tested.pvalue))


def _rounds(result: ArmResult, headline: Figure) -> list[tuple[int, float, float]]:
    """Returns round, standing and benefit of each targeted round that was tested, as was the one before."""
    tests = {row["round"]: row.get(headline.column) for row in result.metrics}
    gains = {}
    for at, value in tests.items():
        before = tests.get(at - 1)
        if value is not None and before is not None:
            gain = headline.gain(value, before)
            if gain is not None:
                gains[at] = gain
    found = []
    for row in result.selection:
        at = row["round"]
        near = [
            gains[other] for other in range(at - AROUND, at + AROUND + 1) if other in gains and other != at
        ]
        place = None if row["warmup"] else _standing(row, result.summary["groups"])
        if place is not None and at in gains and len(near) >= AROUND:
            found.append((int(at), place, gains[at] - float(np.mean(near))))
    return found


def _standing(row: dict[str, Any], groups: dict[str, list[str]]) -> float | None:
    """Returns the mean place of a round's updated blocks; None where all or none of the like blocks were."""
    chosen, places = set(row["selected"]), []
    for blocks in groups.values():
        scores = [row["block_scores"].get(block) for block in blocks]
        inside = [place for place, block in enumerate(blocks) if block in chosen]
        if not 0 < len(inside) < len(blocks) or any(score is None for score in scores):
            continue
        for place in inside:
            below = sum(score < scores[place] for score in scores)
            level = sum(score == scores[place] for score in scores) - 1
            places.append((below + level / 2) / (len(blocks) - 1))
    return float(np.mean(places)) if places else None
