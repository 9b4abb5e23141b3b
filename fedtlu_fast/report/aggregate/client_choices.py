"""Reads from the log of an arm which blocks its clients trained or sent, and how far the clients agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.report.arms import arm_names, chooses
from fedtlu_fast.runs.results import ArmResult

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ClientChoices:
    """The choices of one run, over the T rounds in which blocks were chosen for its clients.

    Attributes:
        rounds: [T], the numbers of these rounds.
        blocks: names of the B blocks among which clients choose, from input to output.
        shares: [T, B], the share of the cohort that sent the block; NaN in a round without a cohort.
        agreement: [T], see `agreement`.
        sent_less: whether clients sent less than they trained.
    """

    rounds: tuple[int, ...]
    blocks: tuple[str, ...]
    shares: Floats
    agreement: Floats
    sent_less: bool


def client_choices(result: ArmResult) -> ClientChoices | None:
    """Returns the choices of one run; None if its clients had no choice.

    Only blocks that may be chosen count (``open_blocks`` in the summary): a block that every client trains
    and a block that no client may train are left out. Runs of earlier versions do not have ``open_blocks``;
    all of their blocks count.
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
        # A client without any block failed; it did not make another choice.
        agreements.append(agreement(mask[mask.any(axis=1)][:, kept]))
    return ClientChoices(
        rounds=tuple(row["round"] for row in rows),
        blocks=tuple(names[place] for place in kept),
        shares=np.array(shares),
        agreement=np.array(agreements),
        sent_less=any("sent_blocks" in row for row in rows),
    )


def agreement(masks: Masks) -> float:
    """Computes the mean over pairs of clients of the Jaccard index of their sets of blocks.

    The index of two empty sets is 1.

    Args:
        masks: [K, B] bool, the blocks of each client.

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


def arms_choices(results: Sequence[ArmResult]) -> dict[str, list[ClientChoices]]:
    """Returns the choices of every arm whose clients choose, in the order of the arms."""
    found: dict[str, list[ClientChoices]] = {}
    for name in arm_names(results):
        own = [client_choices(result) for result in results if result.selector == name]
        if runs := [run for run in own if run is not None]:
            found[name] = runs
    return found


def mean_shares(runs: Sequence[ClientChoices], blocks: Sequence[str], rounds: Sequence[int]) -> Floats:
    """Returns [T, B]: the mean of the shares over runs; NaN where no run has a cohort.

    Args:
        runs: the choices of one arm's runs.
        blocks: [B], names of blocks, among them those of the runs.
        rounds: [T], consecutive numbers of rounds, among them those of the runs.
    """
    total, count = np.zeros((len(rounds), len(blocks))), np.zeros((len(rounds), len(blocks)))
    for run in runs:
        rows = np.array(run.rounds) - rounds[0]
        cells = np.ix_(rows, np.array([blocks.index(name) for name in run.blocks], np.int64))
        known = ~np.isnan(run.shares)
        total[cells] += np.where(known, run.shares, 0)
        count[cells] += known
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
