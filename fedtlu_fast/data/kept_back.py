"""Splits samples that nobody trains on: some may be looked at before a choice, the rest are for a test."""

from __future__ import annotations

import numpy as np

from fedtlu_fast.data.population import Indices, Samples


def spread(size: int, wanted: int) -> Indices:
    """Returns [wanted] int64, places from 0 to `size` - 1 that are spread evenly, ascending.

    Args:
        size: number of places, `wanted` or more.
        wanted: number of places that are returned; may be 0.
    """
    return np.arange(wanted) * size // max(1, wanted)


def split_kept_back(kept: Samples, share: float) -> tuple[Samples, Samples]:
    """Splits the samples that a client keeps back into those that it may look at, and its own test.

    The rule is fixed, without a draw, so that all runs of a comparison have the same tests. Of two or more
    samples at least one is left for the test; a single one is for looking at.

    Args:
        kept: the samples; may be empty.
        share: share of them that the client may look at, below 1; 0: the test has all of them.
    """
    if not share or not len(kept):
        return Samples(kept.pool, kept.rows[:0]), kept
    most = max(1, len(kept) - 1)
    own = spread(len(kept), min(most, max(1, round(share * len(kept)))))
    rest = np.setdiff1d(np.arange(len(kept)), own)
    return Samples(kept.pool, kept.rows[own]), Samples(kept.pool, kept.rows[rest])
