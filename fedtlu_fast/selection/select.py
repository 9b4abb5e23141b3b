"""Makes the server's choice of one round: the selector's choice, and rules that hold for every selector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.selection.calls import chosen_by
from fedtlu_fast.selection.evidence import Evidence
from fedtlu_fast.selection.quota import Keep, quotas
from fedtlu_fast.selection.room import ServerRoom
from fedtlu_fast.selection.selector import FunctionSelector, Ranking, Selector

Unique = Literal["always", "never"]


@dataclass(frozen=True, repr=False)
class Selection:
    """Holds the blocks to update; printing it shows their names.

    Attributes:
        blocks: the indices of the blocks, ascending.
        names: the names of the blocks.
        mask: [L] bool, the layers in these blocks.
        layers: the names of these layers.
        parameters: the number of parameters in these blocks.
    """

    blocks: tuple[int, ...]
    names: tuple[str, ...]
    mask: Tensor
    layers: tuple[str, ...]
    parameters: int

    def __repr__(self) -> str:
        blocks = f"{len(self.blocks)} block{'' if len(self.blocks) == 1 else 's'}"
        return f"Selection of {blocks}, {self.parameters:,} parameters: {', '.join(self.names) or 'none'}"

    def chosen(self, layout: ParameterLayout) -> Tensor:
        """Returns the blocks as a mask, [B] bool."""
        mask = torch.zeros(len(layout.blocks), dtype=torch.bool)
        mask[list(self.blocks)] = True
        return mask


def server_room(selector: Selector, layout: ParameterLayout, keep: Keep) -> ServerRoom:
    """Returns the room of a selector on the server: `keep` blocks of each group, if it goes by quotas.

    Args:
        selector: the selector.
        layout: the layout, which holds the groups.
        keep: the number of blocks, or a share; see `quotas`. A selector without quotas ignores it.

    Raises:
        InputError: `keep` does not fit the groups, or the selector does not (`Selector.check_layout`).
    """
    room = ServerRoom(layout, quotas(layout, keep) if selector.budgeted else (0,) * len(layout.groups))
    try:
        selector.check_layout(layout)
    except InputError as error:
        raise error.of(f"selection.{error.field}") from error
    return room


def decided_share(selector: Selector, room: ServerRoom) -> float:
    """Returns the share of the parameters on which a selector on the server decides.

    These are the parameters of the groups with more blocks than are kept. A group that is kept whole leaves
    no choice to a selector that ranks; any other selector may choose fewer blocks, so all its groups count.

    Args:
        selector: the selector.
        room: the number of blocks to keep in each group.
    """
    layout, sizes = room.layout, room.layout.block_sizes()
    ranks = isinstance(selector, Ranking | FunctionSelector)
    groups = zip(layout.groups, room.quotas, strict=True)
    open_groups = [group for group, quota in groups if len(group.blocks) > quota or not ranks]
    return sum(sizes[block] for group in open_groups for block in group.blocks) / layout.size


def select(
    selector: Selector,
    evidence: Evidence,
    room: ServerRoom,
    unique: Unique,
    nonfinite: Tensor,
    unsent: Sequence[int] = (),
    field: str = "selection.selector",
) -> Selection:
    """Chooses the blocks that the server applies.

    Args:
        selector: the part that chooses among like blocks.
        evidence: the numbers that the selector sees, with one row.
        room: the number of blocks to keep in each group.
        unique: whether unique blocks (embeddings, head, final norm) are updated in every round or never.
            The paper does not say; ``always`` (default, ours) keeps input and output in step with the blocks
            between them.
        nonfinite: [L], the number of NaN or Inf in each layer's change. A block with any is left out, even
            if it was chosen.
        unsent: the blocks that no client sent; they are left out too.
        field: the setting or argument that gives the selector, for errors.

    Raises:
        InputError: The selector raises or makes no choice; see `chosen_by`.
    """
    layout = evidence.layout
    chosen = chosen_by(selector, evidence, room, field)[0].copy()
    if unique == "always":
        chosen[list(layout.unique)] = True
    for index, block in enumerate(layout.blocks):
        if bool((nonfinite[list(block.layers)] > 0).any()):
            chosen[index] = False
    chosen[list(unsent)] = False
    blocks = tuple(int(index) for index in chosen.nonzero()[0])
    return selection_of(layout, blocks)


def selection_of(layout: ParameterLayout, blocks: Sequence[int]) -> Selection:
    """Returns the selection of exactly these blocks."""
    mask = layout.layer_mask(blocks)
    sizes = torch.tensor([layer.numel for layer in layout.layers])
    names = tuple(layout.blocks[index].name for index in blocks)
    layers = tuple(layer.name for layer, held in zip(layout.layers, mask.tolist(), strict=True) if held)
    return Selection(tuple(blocks), names, mask, layers, int(sizes[mask].sum()))
