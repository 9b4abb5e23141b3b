"""Refuses scores that tell no block from another, of which a ranking would silently make the first blocks."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.errors import InputError
from fedtlu_fast.selection.evidence import Evidence, Vector
from fedtlu_fast.selection.room import Room

logger = logging.getLogger("fedtlu_fast")


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
    if not _may_choose(evidence, blocks):
        return
    found = values[:, blocks]
    if np.isnan(found).all():
        raise InputError(field, name, "a score that is a number for some block, but all are NaN")
    ranked = np.where(np.isnan(found), -np.inf, found)
    if np.isinf(ranked).all() and (ranked == ranked[0, 0]).all():
        raise InputError(field, name, f"a score that is a number for some block, but all are {ranked[0, 0]}")


def warn_of_none(name: str, values: Vector, evidence: Evidence, room: Room) -> None:
    """Warns if a metric ranks no block that may be chosen, as metrics that compare clients do with one alone.

    Args:
        name: the metric.
        values: [R, B]; -1 where a block is not ranked (`BlockValues`).
        evidence: what the selector sees.
        room: the blocks that it may choose.
    """
    blocks = np.flatnonzero(room.open)
    if (values[:, blocks] == -1).all() and _may_choose(evidence, blocks):
        said = "round %d: %s ranks no block, and the first ones are taken. Were there two clients or more?"
        logger.warning(said, evidence.round, name)


def _may_choose(evidence: Evidence, blocks: NDArray[np.intp]) -> bool:
    """Whether clients have trained, and some of these blocks has a change that is finite and not zero."""
    if evidence.stats is None:
        return False
    l2, nonfinite = (row.cpu().numpy() for row in (evidence.stats.l2, evidence.stats.nonfinite))
    layers = [list(evidence.layout.blocks[block].layers) for block in blocks]
    return any((l2[own] > 0).any() and not nonfinite[own].any() for own in layers)
