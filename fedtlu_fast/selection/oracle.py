"""Upper bounds (ours): selectors that try blocks on samples that the server holds, or a client keeps back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, product
from math import comb, prod
from typing import Annotated

import numpy as np
from pydantic import Field

from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part
from fedtlu_fast.scoring.held_out import HeldOut
from fedtlu_fast.selection.evidence import Evidence, Mask
from fedtlu_fast.selection.room import Room, ServerRoom
from fedtlu_fast.selection.selector import Ranking, Selector


@part
class Oracle(Selector):
    """Applies the blocks that lower the loss most on held-out samples: an upper bound, not a method (ours).

    It keeps as many blocks as other selectors, and looks one round ahead: no other choice lowers that loss
    more in this round, but over many rounds another rule, such as a fixed choice, may end lower. In every
    round it costs a forward pass over the samples of `evaluation.held_out` for each set of blocks that it
    tries. A server that has such samples and time may use it; the comparison with it says how much a score
    could gain.

    Attributes:
        sets: largest number of sets of blocks that are all tried. If there are more, blocks are added one by
            one, each time the best.
    """

    sets: Annotated[int, Field(ge=1)] = 64
    needs = ("held_out",)

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """Chooses the set with the lowest held-out loss; among equal ones, the first.

        Raises:
            InputError: The server has no held-out samples, or clients choose.
        """
        sample = None if evidence.change is None else evidence.change.held_out
        if sample is None or not isinstance(room, ServerRoom):
            raise InputError("selector", "oracle", "a server that has held-out samples (evaluation.held_out)")
        groups = [group.blocks for group in room.layout.groups]
        count = prod(comb(len(blocks), quota) for blocks, quota in zip(groups, room.quotas, strict=True))
        if count <= self.sets:
            chosen = min(_all_sets(groups, room.quotas), key=lambda blocks: _loss(sample, blocks))
        else:
            chosen = _greedy(sample, groups, room.quotas)
        mask = np.zeros((1, len(room.layout.blocks)), np.bool_)
        mask[0, list(chosen)] = True
        return mask


@part
class ClientOracle(Ranking):
    """Sends the blocks of a client's change that lower the loss most on samples that it keeps back (ours).

    A bound on what a client can know of its own blocks, not a method: each block is tried alone, on the model
    from which the client started, which takes a forward pass over the samples for each block. The samples are
    the share `evaluation.local_held_out` of those of the client's local test, which then does not count them.
    The client does not know what others send.
    """

    moment = "by_change"
    needs = ("benefit",)


def _loss(sample: HeldOut, blocks: Sequence[int]) -> float:
    """The held-out loss; a loss that is no number is behind all others."""
    found = sample.loss(blocks)
    return float("inf") if np.isnan(found) else found


def _all_sets(groups: Sequence[Sequence[int]], quotas: Sequence[int]) -> Iterable[tuple[int, ...]]:
    each = [combinations(blocks, quota) for blocks, quota in zip(groups, quotas, strict=True)]
    return (tuple(block for part in parts for block in part) for parts in product(*each))


def _greedy(sample: HeldOut, groups: Sequence[Sequence[int]], quotas: Sequence[int]) -> tuple[int, ...]:
    """Adds the best block that there is room for, again and again, until every group has its number."""
    chosen: list[int] = []
    left = list(quotas)
    while any(left):
        candidates = [
            (_loss(sample, [*chosen, block]), at, block)
            for at, blocks in enumerate(groups)
            if left[at]
            for block in blocks
            if block not in chosen
        ]
        _, at, block = min(candidates)
        chosen.append(block)
        left[at] -= 1
    return tuple(chosen)
