"""Which blocks clients choose among, which they always train, and which stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.selection.selectors import Mask

Names = str | Sequence[str]
"""``auto``, ``none``, or one or more patterns of block names (``h.0``, ``h.*``, ``*norm*``)."""


@dataclass(frozen=True)
class Standing:
    """Every block of a layout is in exactly one of these.

    Attributes:
        open: indices of those that selectors choose among, from input to output.
        always: those that every client trains, beside its budget.
        frozen: those that nobody trains.
    """

    open: tuple[int, ...]
    always: tuple[int, ...]
    frozen: tuple[int, ...]

    def mask(self, blocks: int) -> Mask:
        """[B] bool: the open ones."""
        mask = np.zeros(blocks, np.bool_)
        mask[list(self.open)] = True
        return mask


def standing(
    layout: ParameterLayout, *, frozen: Names, always: Names, only: Sequence[str] = (), fine_tuning: bool
) -> Standing:
    """Sorts a layout's blocks.

    ``auto`` goes by structure, never by names. What lies behind the last of the like blocks (final norm,
    head) is always trained; without such, the last block is. What lies before the first of them (embeddings)
    is frozen when a model is fine-tuned, as in arXiv 2408.15600, and open when it is trained from random
    weights, which nobody would freeze (ours).

    Args:
        layout: blocks and groups.
        frozen: what nobody trains.
        always: what every client trains.
        only: patterns of what may be trained at all; empty for everything. FedPer's and FedRep's base,
            FedBN's all but the norms, LoRA's adapters are such.
        fine_tuning: whether the model begins with weights that were trained.

    Raises:
        InputError: a pattern that fits no block, one block under two of them, or no block left to train.
    """
    outside = set(layout.ungrouped)
    grouped = [index for index in range(len(layout.blocks)) if index not in outside]
    last = max(grouped) if grouped else -1
    head = {index for index in outside if index > last} if grouped else set()
    stem = {index for index in outside if index < min(grouped)} if grouped and fine_tuning else set()
    allowed = _matching("only", only, layout) if only else set(range(len(layout.blocks)))
    kept = _named("frozen", frozen, stem, layout) | (set(range(len(layout.blocks))) - allowed)
    trained = _named("always", always, head or {len(layout.blocks) - 1}, layout)
    if always == "auto":
        trained -= kept
    if trained & kept:
        both = layout.blocks[min(trained & kept)].name
        raise InputError("client_selection.always", both, "a block that is not frozen too")
    rest = sorted(set(range(len(layout.blocks))) - trained - kept)
    if not rest and not trained:
        raise InputError("client_selection.frozen", frozen, "some block left to train")
    return Standing(tuple(rest), tuple(sorted(trained)), tuple(sorted(kept)))


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
