"""What clients trained, or sent, read from the log of an arm: shares of the cohort, and their agreement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.report.arms import chooses
from fedtlu_fast.runs.results import ArmResult

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ClientChoices:
    """One run's choices, over the T rounds in which its clients were told something.

    Attributes:
        rounds: [T], their numbers.
        blocks: names of the B blocks that are chosen among, from input to output.
        shares: [T, B]: the share of the cohort that sent the block; NaN in a round without a cohort.
        agreement: [T], see `agreement`.
        sent_less: whether clients sent less than they trained.
    """

    rounds: tuple[int, ...]
    blocks: tuple[str, ...]
    shares: Floats
    agreement: Floats
    sent_less: bool


def client_choices(result: ArmResult) -> ClientChoices | None:
    """The choices of one run; None when its clients had none.

    Blocks that every client trains in any case, and those that nobody may, are left out: they are not
    chosen. Logs of earlier versions do not name them (``open_blocks`` in the summary); then all blocks count.
    """
    if not chooses(result):
        return None
    rows = [row for row in result.selection if "client_blocks" in row]
    names = tuple(rows[0]["block_scores"])
    opened = result.summary.get("open_blocks")
    kept = [place for place, name in enumerate(names) if opened is None or name in opened]
    shares, agreements = [], []
    for row in rows:
        mask = np.zeros((len(row["cohort"]), len(names)), np.bool_)
        for own, blocks in zip(mask, row.get("sent_blocks", row["client_blocks"]), strict=True):
            own[blocks] = True
        shares.append(mask[:, kept].mean(axis=0) if len(mask) else np.full(len(kept), np.nan))
        # Those that have no block at all failed; they did not choose otherwise.
        agreements.append(agreement(mask[mask.any(axis=1)][:, kept]))
    return ClientChoices(
        rounds=tuple(row["round"] for row in rows),
        blocks=tuple(names[place] for place in kept),
        shares=np.array(shares),
        agreement=np.array(agreements),
        sent_less=any("sent_blocks" in row for row in rows),
    )


def agreement(masks: Masks) -> float:
    """Mean over pairs of clients of the Jaccard index of their sets of blocks; 1 for two empty sets.

    Args:
        masks: [K, B] bool.

    Returns:
        A number in [0, 1]; NaN for fewer than two clients.
    """
    if len(masks) < 2:
        return float("nan")
    numbers = masks.astype(np.float64)
    both = numbers @ numbers.T
    sizes = numbers.sum(axis=1)
    either = sizes[:, None] + sizes - both
    index = np.divide(both, either, out=np.ones_like(both), where=either > 0)
    pairs = np.triu_indices(len(masks), 1)
    return float(index[pairs].mean())
