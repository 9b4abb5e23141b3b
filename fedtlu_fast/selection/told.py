"""Refuses scores that tell no block from another, of which a ranking would silently make the first blocks."""

from __future__ import annotations

import numpy as np

from fedtlu_fast.errors import InputError
from fedtlu_fast.selection.evidence import Evidence, Vector
from fedtlu_fast.selection.room import Room


def check_told(field: str, name: str, values: Vector, evidence: Evidence, room: Room) -> None:
    """Checks that the scores of a change have a number for some block that may be chosen.

    NaN for some blocks ranks them last, and a mixture of inf and -inf is an order: both are fine. Nothing is
    checked before clients have trained, nor if no block that may be chosen has a change that is finite and
    not zero: then nothing can be applied, and a quotient such as 0/0 is nobody's mistake.

    Args:
        field: the setting or argument that gives the scores, for the error.
        name: the metric or function, for the error.
        values: [R, B], larger is better.
        evidence: what the selector sees.
        room: the blocks that it may choose.

    Raises:
        InputError: all these blocks have NaN, or the same infinite value.
    """
    blocks = np.flatnonzero(room.open)
    if evidence.stats is None or not len(blocks):
        return
    l2, nonfinite = (row.cpu().numpy() for row in (evidence.stats.l2, evidence.stats.nonfinite))
    layers = [list(evidence.layout.blocks[block].layers) for block in blocks]
    if not any((l2[own] > 0).any() and not nonfinite[own].any() for own in layers):
        return
    found = values[:, blocks]
    if np.isnan(found).all():
        raise InputError(field, name, "a score that is a number for some block, but all are NaN")
    ranked = np.where(np.isnan(found), -np.inf, found)
    if np.isinf(ranked).all() and (ranked == ranked[0, 0]).all():
        raise InputError(field, name, f"a score that is a number for some block, but all are {ranked[0, 0]}")
