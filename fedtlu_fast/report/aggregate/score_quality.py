"""How good scores and blocks are by the benefits that runs recorded; `block_benefit` has the definitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.report.aggregate.block_benefit import GroupBenefit, RunBenefit, chances
from fedtlu_fast.report.aggregate.stability import Matrix, kendall_tau

FEWEST_RUNS = 3
"""Of fewer runs there is no interval: Student's t with one degree of freedom is too wide to say anything."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval by Student's t, ``value - reach`` to ``value + reach``.

    Attributes:
        value: the number; None if it is not defined.
        reach: half the length of the interval; None with fewer than two rounds, or `FEWEST_RUNS` runs.
    """

    value: float | None
    reach: float | None


@dataclass(frozen=True)
class ScoreQuality:
    """How well one score finds the blocks that help most.

    The intervals take the rounds of a single run as independent. They are not, since the model of a round
    comes from the rounds before, so that the true intervals are longer. Those of several runs are over runs.

    Attributes:
        group: the name of the group; None for all groups together.
        score: the name of the score.
        share: the share of the attainable gain; see `block_benefit`. Its interval is that of a ratio of sums
            (W. G. Cochran, Sampling Techniques, 3rd edition 1977, chapter 6).
        tau: Kendall's tau-b between score and gain of a group's blocks, as a mean over rounds (and groups);
            rounds in which all blocks tie have none.
        thirds: the share in the early, middle and late third of the rounds.
        rounds: the number of rounds that were used.
    """

    group: str | None
    score: str
    share: Estimate
    tau: Estimate
    thirds: tuple[float | None, ...]
    rounds: int


@dataclass(frozen=True)
class BlockQuality:
    """How much one block helped.

    Attributes:
        group: the name of its group.
        block: its name.
        gain: the mean fall of the held-out loss by this block alone, as a share of the mean loss without it;
            None if that loss is 0, or without rounds.
        best: the share of rounds in which no block of the group gained more; rounds in which n blocks gain
            equally count 1/n. None without rounds.
        chosen: the share of targeted rounds in which the run chose it; None without targeted rounds.
    """

    group: str
    block: str
    gain: float | None
    best: float | None
    chosen: float | None


@dataclass(frozen=True)
class Together:
    """Whether the gains of blocks add up.

    Attributes:
        every: the mean fall of the held-out loss in a round if every block is applied, in nats.
        singles: the mean sum of the gains of all blocks, each applied alone, in nats.
    """

    every: float
    singles: float


@dataclass(frozen=True)
class BenefitReport:
    """What recorded benefits say.

    Attributes:
        keep: the number of blocks that runs keep in each group, by its name.
        scores: each score in each group, then in all groups together if there are several.
        blocks: each block.
        together: whether gains add up; None if no round can be used.
        runs: the number of runs.
        rounds: the number of rounds that were used.
        left_out: the number of rounds in which a loss is missing or no number.
    """

    keep: dict[str, int]
    scores: list[ScoreQuality]
    blocks: list[BlockQuality]
    together: Together | None
    runs: int
    rounds: int
    left_out: int


def benefit_report(runs: Sequence[RunBenefit]) -> BenefitReport:
    """Computes it for the rounds of all runs together.

    Args:
        runs: one or more runs with the same groups, which keep equally many blocks of each.
    """
    rounds = sum(len(run.before) for run in runs)
    recorded = sum(run.recorded for run in runs)
    together = None
    if rounds:
        fall = sum(float((run.before - run.every).sum()) for run in runs)
        singles = sum(float(group.gains.sum()) for run in runs for group in run.groups)
        together = Together(fall / rounds, singles / rounds)
    keep = {group.group: group.keep for group in runs[0].groups}
    return BenefitReport(keep, _scores(runs), _blocks(runs), together, len(runs), rounds, recorded - rounds)


def _scores(runs: Sequence[RunBenefit]) -> list[ScoreQuality]:
    places = range(len(runs[0].groups))
    names = list(dict.fromkeys(name for run in runs for group in run.groups for name in group.scores))
    found = []
    for group in [*places, None] if len(places) > 1 else places:
        title = None if group is None else runs[0].groups[group].group
        for name in names:
            asked = [run for run in runs if name in run.groups[0].scores]
            wanted = places if group is None else [group]
            parts = [
                _joined(np.stack([_by_round(run.groups[place], name) for place in wanted])) for run in asked
            ]
            found.append(_quality(title, name, parts, asked, over_runs=len(runs) > 1))
    return found


def _by_round(group: GroupBenefit, score: str) -> Matrix:
    """Returns tau, gain over random of the score's choice, and that of the best, [3, T]; NaN without score.

    The gains are sums over the chosen blocks, so that groups add up.
    """
    scores, gains, even = group.scores[score], group.gains, group.keep / len(group.blocks)
    known = ~np.isnan(scores).any(axis=1)
    found = np.full((3, len(gains)), np.nan)
    scores, gains = scores[known], gains[known]
    # Minus the random choice's chances, so that a score that says nothing has exactly nothing.
    own, best = (((chances(by, group.keep) - even) * gains).sum(axis=1) for by in (scores, gains))
    found[:, known] = kendall_tau(scores, gains), own, best
    return found


def _joined(parts: Matrix) -> Matrix:
    """Joins groups (or rounds), [N, 3, T] -> [3, T]: the mean of taus, the sums of gains; NaN without any."""
    counts = (~np.isnan(parts)).sum(axis=0)
    sums = np.nan_to_num(parts).sum(axis=0)
    sums[0] /= np.maximum(counts[0], 1)
    found: Matrix = np.where(counts > 0, sums, np.nan)
    return found


def _quality(
    group: str | None, score: str, parts: Sequence[Matrix], runs: Sequence[RunBenefit], *, over_runs: bool
) -> ScoreQuality:
    """Makes the row of one score from the [3, T] of each run that has the score."""
    thirds = np.concatenate([run.thirds for run in runs])
    joined = np.concatenate(parts, axis=1)
    sums = [_joined(part.T[:, :, None])[:, 0] for part in parts]
    units = np.stack(sums, axis=1) if over_runs else joined
    known, fewest = ~np.isnan(joined[1]), FEWEST_RUNS if over_runs else 2
    return ScoreQuality(
        group,
        score,
        share=_ratio(units[1], units[2], fewest),
        tau=_mean(units[0], fewest),
        thirds=tuple(_ratio(*joined[1:, thirds == third]).value for third in range(3)),
        rounds=int(known.sum()),
    )


def _mean(values: Matrix, fewest: int) -> Estimate:
    """The mean of independent numbers; NaN is left out."""
    return _ratio(values, np.ones(len(values)), fewest)


def _ratio(above: Matrix, below: Matrix, fewest: int = 2) -> Estimate:
    """The ratio of the sums of pairs that are independent; pairs with NaN are left out.

    Of fewer than `fewest` pairs, at least 2, there is no interval.
    """
    from scipy.stats import t  # takes half a second to import

    known = ~np.isnan(above)
    above, below = above[known], below[known]
    count, total = len(above), float(below.sum())
    if not total > 0:
        return Estimate(None, None)
    value = float(above.sum()) / total
    if count < fewest:
        return Estimate(value, None)
    spread = float((above - value * below).std(ddof=1))
    return Estimate(value, float(t.ppf(0.975, count - 1)) * spread * sqrt(count) / total)


def _blocks(runs: Sequence[RunBenefit]) -> list[BlockQuality]:
    before = sum(float(run.before.sum()) for run in runs)
    found = []
    for groups in zip(*(run.groups for run in runs), strict=True):
        gains = np.concatenate([group.gains for group in groups])
        chosen = np.concatenate([group.chosen for group in groups])
        best = chances(gains, 1)
        for place, block in enumerate(groups[0].blocks):
            gain = float(gains[:, place].sum()) / before if before else None
            found.append(
                BlockQuality(groups[0].group, block, gain, _share(best[:, place]), _share(chosen[:, place]))
            )
    return found


def _share(values: Matrix | NDArray[np.bool_]) -> float | None:
    return float(values.mean()) if len(values) else None
