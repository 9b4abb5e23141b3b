"""What recorded benefits say about scores (ours): would the blocks with the best scores have helped most?

A run with `evaluation.benefit` writes into every row of selection.jsonl the held-out loss with each block of
a group applied alone, and every score. The gain of a block is the loss with none of them minus that loss, in
nats; blocks that every round applies are applied in both. The share of the attainable gain of a score, over
rounds t, for the k blocks of a group that a run keeps, is::

    sum_t (mean gain of the k best by the score - mean gain of all blocks)
    / sum_t (mean gain of the k that gain most - mean gain of all blocks)

1 is what an oracle gets, 0 a random choice; a negative share is worse than random. Equal scores count with
their mean over all ways to break the tie. Only the order of scores counts, and a block whose score is no
number comes last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.report.aggregate.stability import Matrix, standing

DECAY = 0.9
"""How much less a round counts than the one after it, in the smoothed version of a score."""
SMOOTHED = ", smoothed"
"""Ends the name of the smoothed version of a score."""
FIRST, LAST = "first", "last"
"""Names of the baselines: always the blocks nearest the input, or the output."""
BASELINES = (FIRST, LAST)


@dataclass(frozen=True)
class GroupBenefit:
    """The benefits of one group of like blocks in the T rounds of a run that can be used.

    Attributes:
        group: the name of the group.
        blocks: the names of its B blocks, from input to output.
        keep: the number of blocks that the run keeps in a round.
        gains: [T, B], the fall of the held-out loss if the round applied this block alone, in nats.
        scores: by the name of each score, the place of every block among those of the round, [T, B] in
            [0, 1], 1 is the best; NaN in rounds without this score.
        chosen: [N, B], whether the run chose the block, in its N targeted rounds.
    """

    group: str
    blocks: tuple[str, ...]
    keep: int
    gains: Matrix
    scores: Mapping[str, Matrix]
    chosen: NDArray[np.bool_]


@dataclass(frozen=True)
class RunBenefit:
    """What one run recorded, without the rounds in which a loss is missing or no number.

    Attributes:
        recorded: the number of the run's rounds, those included that are left out.
        thirds: [T], 0, 1 or 2: the third of the run so far in which the round lies.
        before: [T], the held-out loss with no block of a group applied.
        every: [T], the held-out loss with the change of every block.
        groups: the groups of like blocks.
    """

    recorded: int
    thirds: NDArray[np.int64]
    before: Matrix
    every: Matrix
    groups: tuple[GroupBenefit, ...]


def run_benefit(
    selection: Sequence[Mapping[str, Any]], groups: Mapping[str, Sequence[str]], keep: Sequence[int]
) -> RunBenefit | None:
    """Reads the benefits out of a run's rows; None if no row has any.

    Args:
        selection: the rows of selection.jsonl, warm-up included.
        groups: the blocks of each group, from input to output.
        keep: the number of blocks that the run keeps in each group; see `quotas`.
    """
    held = [at for at, row in enumerate(selection) if row.get("benefit")]
    if not held:
        return None
    benefits = [selection[at]["benefit"] for at in held]
    before, every = (np.array([row[name] for row in benefits], np.float64) for name in ("before", "every"))
    alone = {name: _numbers([row["alone"] for row in benefits], blocks) for name, blocks in groups.items()}
    losses = np.column_stack([before, every, *alone.values()])
    sound = np.isfinite(losses).all(axis=1)
    targeted = [set(row["selected"]) for row in selection if not row["warmup"]]
    return RunBenefit(
        recorded=len(selection),
        thirds=np.array([3 * at // len(selection) for at in held], np.int64)[sound],
        before=before[sound],
        every=every[sound],
        groups=tuple(
            GroupBenefit(
                name,
                tuple(blocks),
                kept,
                (before[:, None] - alone[name])[sound],
                {score: found[sound] for score, found in _scores(benefits, blocks).items()},
                np.array([[block in row for block in blocks] for row in targeted], np.bool_).reshape(
                    len(targeted), len(blocks)
                ),
            )
            for (name, blocks), kept in zip(groups.items(), keep, strict=True)
        ),
    )


def places(scores: Matrix) -> Matrix:
    """Returns the place of each block in its round, [T, B] in [0, 1], 1 for the best; NaN without any score.

    Args:
        scores: [T, B]; larger is better, and NaN comes last.
    """
    found = standing(np.where(np.isnan(scores), -np.inf, scores))
    found[np.isnan(scores).all(axis=1)] = np.nan
    return found


def smoothed(ranks: Matrix) -> Matrix:
    """Returns the place of each block by the mean of its places so far, where older rounds count less.

    Args:
        ranks: [T, B], the result of `places`. Rounds without the score stay as they are.
    """
    found, total = np.full(ranks.shape, np.nan), np.zeros(ranks.shape[1])
    for at in np.flatnonzero(~np.isnan(ranks).any(axis=1)):
        total = DECAY * total + ranks[at]  # the divisor of the mean is the same for all blocks
        found[at] = total
    return places(found)


def chances(values: Matrix, keep: int) -> Matrix:
    """Returns the probability that a block is among the `keep` best if ties are broken at random, [T, B].

    Args:
        values: [T, B] without NaN; larger is better.
        keep: a number of blocks, at most B.
    """
    found = np.empty(values.shape)
    for place in range(values.shape[1]):  # block by block, because [T, B, B] would take much memory
        own = values[:, [place]]
        better, level = (values > own).sum(axis=1), (values == own).sum(axis=1)
        found[:, place] = np.clip((keep - better) / level, 0, 1)
    return found


def _scores(benefits: Sequence[Mapping[str, Any]], blocks: Sequence[str]) -> dict[str, Matrix]:
    """The places of blocks by every recorded score, by its smoothed version, and by the baselines."""
    found: dict[str, Matrix] = {}
    for name in dict.fromkeys(name for row in benefits for name in row["scores"]):
        found[name] = places(_numbers([row["scores"].get(name, {}) for row in benefits], blocks))
        found[name + SMOOTHED] = smoothed(found[name])
    order = np.tile(np.arange(len(blocks), dtype=np.float64), (len(benefits), 1))
    return {**found, FIRST: places(-order), LAST: places(order)}


def _numbers(rows: Sequence[Mapping[str, float | None]], blocks: Sequence[str]) -> Matrix:
    """The numbers of these blocks, [T, B]; NaN where a row has none."""
    found = np.array([[row.get(block) for block in blocks] for row in rows], np.float64)
    return found.reshape(len(rows), len(blocks))
