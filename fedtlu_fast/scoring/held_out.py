"""What a server with a few samples of its own can find out about a change before it applies it, or a client
that keeps samples back before it sends it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from torch import Tensor

from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout


class HeldOut(Protocol):
    """Losses on an own sample: the server's, or a client's of what it keeps back."""

    def loss(self, blocks: Collection[int]) -> float:
        """Returns the mean loss on the sample if exactly these blocks of groups were applied.

        What is applied whatever the choice (the server's unique blocks, the blocks that a client sends in any
        case) is applied too. Costs a forward pass over the sample.

        Args:
            blocks: indices of blocks; for the server, of blocks that are in a group of like blocks.
        """
        ...

    def gradient(self) -> Tensor:
        """Returns the gradient of the mean loss on the sample before the change, [P] float32, as a copy.

        Costs a forward and a backward pass over the sample.
        """
        ...


def check_blocks(blocks: Collection[int], layout: ParameterLayout) -> None:
    """Checks that these are indices of a layout's blocks; -1 does not stand for the last one.

    Raises:
        InputError: one is not.
    """
    count = len(layout.blocks)
    for block in blocks:
        if not 0 <= block < count:
            raise InputError("blocks", block, f"indices of blocks, from 0 to {count - 1}")
