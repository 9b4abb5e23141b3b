"""How much of the ranking of like blocks survives from round to round (ours).

Two measures over the targeted rounds of one run, within each group, between rounds that lie `lag` apart:
Kendall's tau-b of the block scores (1: the same order, 0: unrelated, -1: reversed), and the Jaccard overlap
of the chosen blocks, |A and B| / |A or B|, beside the overlap to be expected of random choices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.layout import ParameterLayout

LAGS = (1, 2, 5, 10)
AT_ONCE = 2**20
"""The number of comparisons of two blocks that are held in memory at a time."""
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class GroupHistory:
    """The scores and choices of one group of like blocks in the targeted rounds.

    Attributes:
        group: the name of the group.
        blocks: the names of its B blocks, from input to output.
        rounds: the numbers of the T targeted rounds.
        scores: [T, B], NaN where a block has no score.
        chosen: [T, B], whether the block was chosen.
    """

    group: str
    blocks: tuple[str, ...]
    rounds: tuple[int, ...]
    scores: Matrix
    chosen: NDArray[np.bool_]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of `count` numbers; None where there are too few."""

    mean: float | None
    std: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float] | Matrix) -> Spread:
        """Computes mean and standard deviation of these numbers; NaN (undefined) is left out."""
        found = np.asarray(values if isinstance(values, np.ndarray) else list(values), dtype=np.float64)
        found = found[~np.isnan(found)]
        mean = float(found.mean()) if len(found) else None
        return cls(mean, float(found.std(ddof=1)) if len(found) > 1 else None, len(found))


@dataclass(frozen=True)
class Stability:
    """One row of the table: a group, or all groups together, at one lag.

    Attributes:
        group: the name of the group; None for all groups together.
        lag: the distance of the two rounds of a pair.
        tau: Kendall's tau-b of the scores. It is not defined for a pair in which all blocks of a round tie.
        overlap: the overlap of the choices. It is not defined for a pair in which nothing was chosen.
        by_chance: the overlap to be expected of as many blocks drawn at random.
    """

    group: str | None
    lag: int
    tau: Spread
    overlap: Spread
    by_chance: float | None


def group_histories(selection: Sequence[dict[str, Any]], layout: ParameterLayout) -> list[GroupHistory]:
    """Returns the scores and choices of a run's targeted rounds, group by group.

    Args:
        selection: the rows of selection.jsonl.
        layout: the layout of the run's model.
    """
    rows = [row for row in selection if not row["warmup"]]
    rounds = tuple(int(row["round"]) for row in rows)
    found = []
    for group in layout.groups:
        blocks = tuple(layout.blocks[block].name for block in group.blocks)
        shape = len(rows), len(blocks)
        scores = [[row["block_scores"][name] for name in blocks] for row in rows]  # null becomes NaN
        chosen = [[name in names for name in blocks] for names in (set(row["selected"]) for row in rows)]
        found.append(
            GroupHistory(
                group.name,
                blocks,
                rounds,
                np.array(scores, np.float64).reshape(shape),
                np.array(chosen, np.bool_).reshape(shape),
            )
        )
    return found


def kendall_tau(first: Matrix, second: Matrix) -> Matrix:
    """Computes Kendall's tau-b by rows: [T, B], [T, B] -> [T]; NaN if a whole row ties or a number is NaN.

    ``(concordant - discordant) / sqrt((pairs - ties in first) (pairs - ties in second))``
    (M. G. Kendall, The treatment of ties in ranking problems, Biometrika 33, 1945).
    """
    found = np.full(len(first), np.nan)
    step = max(1, AT_ONCE // max(1, first.shape[1]) ** 2)
    for start in range(0, len(first), step):
        rows = slice(start, start + step)
        a, b = (np.sign(part[rows, :, None] - part[rows, None, :]) for part in (first, second))
        untied = (a * a).sum(axis=(1, 2)) * (b * b).sum(axis=(1, 2))
        ordered = untied > 0  # NaN is not
        found[rows][ordered] = (a * b).sum(axis=(1, 2))[ordered] / np.sqrt(untied[ordered])
    return found


def standing(scores: Matrix) -> Matrix:
    """Returns [T, B] in [0, 1]: 1 for the best block of a round, 0 for the last; 0.5 for equal scores.

    Args:
        scores: [T, B], the scores of like blocks in every round.
    """
    beaten, better = np.zeros(scores.shape), np.zeros(scores.shape)
    for place in range(scores.shape[1]):  # block by block, because [T, B, B] would take much memory
        beaten[:, place] = (scores[:, [place]] > scores).sum(axis=1)
        better[:, place] = (scores[:, [place]] < scores).sum(axis=1)
    found: Matrix = 0.5 + (beaten - better) / (2 * max(1, scores.shape[1] - 1))
    return found


def overlaps(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Matrix:
    """Computes the Jaccard overlap, row by row: [T, B], [T, B] -> [T]; NaN if both rows are empty."""
    both, either = (first & second).sum(axis=1), (first | second).sum(axis=1)
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


@cache
def overlap_by_chance(blocks: int, first: int, second: int) -> float:
    """Computes the expected Jaccard overlap of two random sets out of `blocks`; NaN if both are empty."""
    if not first + second:
        return float("nan")
    shared = range(max(0, first + second - blocks), min(first, second) + 1)
    ways = [comb(first, both) * comb(blocks - first, second - both) for both in shared]
    total = sum(way * both / (first + second - both) for way, both in zip(ways, shared, strict=True))
    return total / comb(blocks, second)


def taus(history: GroupHistory, lag: int = 1) -> Matrix:
    """Returns [T - lag]: tau between each targeted round and the one `lag` rounds later."""
    return kendall_tau(history.scores[:-lag], history.scores[lag:])


def rank_stability(histories: Sequence[GroupHistory], lags: Sequence[int] = LAGS) -> list[Stability]:
    """Returns the rows of every group at every lag that the run allows, then of all groups together.

    Args:
        histories: the histories of one run; see `group_histories`.
        lags: distances in rounds.
    """
    rows, together = [], []
    for lag in lags:
        parts = []
        for history in histories:
            if len(history.rounds) <= lag:
                continue
            early, late = history.chosen[:-lag], history.chosen[lag:]
            sizes = zip(early.sum(axis=1).tolist(), late.sum(axis=1).tolist(), strict=True)
            chance = np.array([overlap_by_chance(len(history.blocks), *pair) for pair in sizes])
            parts.append((taus(history, lag), overlaps(early, late), chance))
            rows.append(_row(history.group, lag, *parts[-1]))
        if len(parts) > 1:
            together.append(_row(None, lag, *map(np.concatenate, zip(*parts, strict=True))))
    order = [history.group for history in histories]
    return sorted(rows, key=lambda row: order.index(str(row.group))) + together


def _row(group: str | None, lag: int, tau: Matrix, overlap: Matrix, chance: Matrix) -> Stability:
    return Stability(group, lag, Spread.of(tau), Spread.of(overlap), Spread.of(chance).mean)
