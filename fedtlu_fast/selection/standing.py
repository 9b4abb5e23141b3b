"""Which blocks clients choose among, which they always train or keep, and which stay as they are."""

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
    """Every block of a layout is in exactly one of these.

    Attributes:
        open: indices of those that selectors choose among, from input to output.
        always: those that every client trains, beside its budget.
        frozen: those that nobody trains.
        personal: those that every client trains and keeps for itself.
    """

    open: tuple[int, ...]
    always: tuple[int, ...]
    frozen: tuple[int, ...]
    personal: tuple[int, ...] = ()

    def mask(self, blocks: int) -> Mask:
        """[B] bool: the open ones."""
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

    ``auto`` goes by structure, never by names. What lies behind the last of the like blocks (final norm,
    head) is always trained; without such, the last block is. What lies before the first of them (embeddings)
    is frozen when a model is fine-tuned, as in arXiv 2408.15600, and open when it is trained from random
    weights, which nobody would freeze (ours). No block is frozen or always trained by ``auto`` that is
    personal; ``personal`` itself is by ``auto`` what lies behind the like blocks.

    Args:
        layout: blocks and groups.
        frozen: what nobody trains.
        always: what every client trains.
        only: patterns of what may be trained at all; empty for everything.
        personal: what every client trains and keeps: the head in FedPer (arXiv 1912.00818) and FedRep
            (arXiv 2102.07078), the norms in FedBN (arXiv 2102.07623).
        fine_tuning: whether the model begins with weights that were trained.

    Raises:
        InputError: a pattern that fits no block, one block under two of them, or no block left to train and
            send.
    """
    outside = set(layout.ungrouped)
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
            # A name may have brackets (lstm[1]), which a pattern gives a meaning.
            if pattern == block.name or fnmatchcase(block.name, pattern)
        }
        if not fits:
            names = ", ".join(block.name for block in layout.blocks)
            raise InputError(f"client_selection.{field}", pattern, f"a pattern of a block's name: {names}")
        found |= fits
    return found
