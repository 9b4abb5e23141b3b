"""What a server that holds a few samples of its own can find out about a change before it applies it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from torch import Tensor


class HeldOut(Protocol):
    """Losses on the server's own sample, with the model as it is before the round's change is applied."""

    def loss(self, blocks: Collection[int]) -> float:
        """Returns the mean loss on the sample if exactly these blocks of groups were applied.

        What the round applies whatever the choice (unique blocks) is applied too. Costs a forward pass over
        the sample.

        Args:
            blocks: indices of blocks that are in a group of like blocks.
        """
        ...

    def gradient(self) -> Tensor:
        """Returns the gradient of the mean loss on the sample before the change, [P] float32.

        Costs a forward and a backward pass over the sample.
        """
        ...
