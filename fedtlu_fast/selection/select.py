"""The server's choice of one round: the selector's, completed by the rules that hold for every selector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.selection.evidence import Evidence
from fedtlu_fast.selection.room import ServerRoom
from fedtlu_fast.selection.selector import Selector, chosen_by

Ungrouped = Literal["always", "never"]


@dataclass(frozen=True)
class Selection:
    """The blocks to update.

    Attributes:
        blocks: their indices, ascending.
        names: their names.
        mask: [L] bool, the layers they hold.
        layers: names of these layers.
        parameters: how many parameters they hold.
    """

    blocks: tuple[int, ...]
    names: tuple[str, ...]
    mask: Tensor
    layers: tuple[str, ...]
    parameters: int

    def chosen(self, layout: ParameterLayout) -> Tensor:
        """[B] bool: these blocks."""
        mask = torch.zeros(len(layout.blocks), dtype=torch.bool)
        mask[list(self.blocks)] = True
        return mask


def select(
    selector: Selector,
    evidence: Evidence,
    room: ServerRoom,
    ungrouped: Ungrouped,
    nonfinite: Tensor,
    unsent: Sequence[int] = (),
) -> Selection:
    """One choice for the whole federation.

    Args:
        selector: makes the choice among like blocks.
        evidence: what it sees (one row).
        room: blocks to keep in each group.
        ungrouped: whether blocks that have no like (embeddings, head, final norm) are updated in every
            round or never. The paper does not say; ``always`` (default, ours) keeps input and output in
            step with the blocks between them.
        nonfinite: [L], number of NaN or Inf in each layer's change. A block that has any is left out, though
            it was chosen.
        unsent: blocks of which nobody sent a change; they are left out too.
    """
    layout = evidence.layout
    chosen = chosen_by(selector, evidence, room)[0].copy()
    if ungrouped == "always":
        chosen[list(layout.ungrouped)] = True
    for index, block in enumerate(layout.blocks):
        if bool((nonfinite[list(block.layers)] > 0).any()):
            chosen[index] = False
    chosen[list(unsent)] = False
    blocks = tuple(int(index) for index in chosen.nonzero()[0])
    return selection_of(layout, blocks)


def selection_of(layout: ParameterLayout, blocks: Sequence[int]) -> Selection:
    """A selection of exactly these blocks."""
    mask = layout.layer_mask(blocks)
    sizes = torch.tensor([layer.numel for layer in layout.layers])
    names = tuple(layout.blocks[index].name for index in blocks)
    layers = tuple(layer.name for layer, held in zip(layout.layers, mask.tolist(), strict=True) if held)
    return Selection(tuple(blocks), names, mask, layers, int(sizes[mask].sum()))
