"""Sorts blocks into those that clients choose from, always train, keep for themselves, or never train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.selection.evidence import Mask

Names = str | Sequence[str]
"""``auto``, ``none``, or one or more patterns of block names (``h.0``, ``h.*``, ``*norm*``)."""


@dataclass(frozen=True)
class Standing:
    """Holds every block of a layout in exactly one of four lists of indices.

    Attributes:
        open: the blocks that selectors choose from, from input to output.
        always: the blocks that every client trains; they do not count against its budget.
        frozen: the blocks that no client trains.
        personal: the blocks that every client trains and keeps for itself.
    """

    open: tuple[int, ...]
    always: tuple[int, ...]
    frozen: tuple[int, ...]
    personal: tuple[int, ...] = ()

    def mask(self, blocks: int) -> Mask:
        """Returns the open blocks as a mask, [B] bool.

        Args:
            blocks: B, the number of blocks.
        """
        mask = np.zeros(blocks, np.bool_)
        mask[list(self.open)] = True
        return mask


def standing(
    layout: ParameterLayout,
    *,
    frozen: Names,
    always: Names,
    only: Sequence[str] = (),
    personal: Names = (),
    fine_tuning: bool,
) -> Standing:
    """Sorts a layout's blocks.

    ``auto`` uses the structure of the model, never names. The unique blocks behind the last like block (final
    norm, head), or the last block if there are none, are the ``auto`` of `always` and of `personal`. The
    unique blocks before the first like block (embeddings) are the ``auto`` of `frozen` if the model is
    fine-tuned, as in arXiv 2408.15600; if it is trained from random weights, they are open (ours). Blocks
    that are personal are neither frozen nor always trained by ``auto``.

    Args:
        layout: the model's blocks and groups.
        frozen: the blocks that no client trains.
        always: the blocks that every client trains.
        only: patterns of the blocks that may be trained; empty for all blocks.
        personal: the blocks that every client trains and keeps for itself: the head in FedPer (arXiv
            1912.00818) and FedRep (arXiv 2102.07078), the norms in FedBN (arXiv 2102.07623).
        fine_tuning: whether the model starts from pre-trained weights.

    Raises:
        InputError: A pattern fits no block, a block is in two of the lists, or no block is left to train and
            send.
    """
    outside = set(layout.unique)
    grouped = [index for index in range(len(layout.blocks)) if index not in outside]
    last = max(grouped) if grouped else -1
    head = {index for index in outside if index > last} if grouped else set()
    stem = {index for index in outside if index < min(grouped)} if grouped and fine_tuning else set()
    allowed = _matching("only", only, layout) if only else set(range(len(layout.blocks)))
    head = head or {len(layout.blocks) - 1}
    own = _named("personal", personal, head, layout)
    if frozen == "auto":
        stem -= own
    kept = _named("frozen", frozen, stem, layout) | (set(range(len(layout.blocks))) - allowed)
    trained = _named("always", always, head, layout)
    if always == "auto":
        trained -= kept | own
    if trained & kept:
        both = layout.blocks[min(trained & kept)].name
        raise InputError("client_selection.always", both, "a block that is not frozen too")
    if own & (kept | trained):
        both = layout.blocks[min(own & (kept | trained))].name
        expected = "a block that may be trained (frozen, only) and is not trained for all (always)"
        raise InputError("client_selection.personal", both, expected)
    rest = sorted(set(range(len(layout.blocks))) - trained - kept - own)
    if not rest and not trained:
        field, given = ("personal", personal) if own else ("frozen", frozen)
        raise InputError(f"client_selection.{field}", given, "some block left to train and to send")
    return Standing(tuple(rest), tuple(sorted(trained)), tuple(sorted(kept)), tuple(sorted(own)))


def _named(field: str, names: Names, auto: set[int], layout: ParameterLayout) -> set[int]:
    if names == "auto":
        return set(auto)
    if names == "none":
        return set()
    return _matching(field, (names,) if isinstance(names, str) else names, layout)


def _matching(field: str, patterns: Sequence[str], layout: ParameterLayout) -> set[int]:
    found: set[int] = set()
    for pattern in patterns:
        fits = {
            index
            for index, block in enumerate(layout.blocks)
            # The first test is for names with brackets (lstm[1]), which mean something else in a pattern.
            if pattern == block.name or fnmatchcase(block.name, pattern)
        }
        if not fits:
            names = ", ".join(block.name for block in layout.blocks)
            raise InputError(f"client_selection.{field}", pattern, f"a pattern of a block's name: {names}")
        found |= fits
    return found
