"""What a method costs: bytes sent and floating-point operations, by block, by client and by round (ours).

To train a block, the gradient has to be passed from the loss down to it: only what lies below the lowest
trained block is free. So a backward pass over the chosen blocks S of a model takes

    backward(S) = max over b in S of reach_b + sum over b in S of weight_b

with `weight_b` for the gradients of the block's own parameters and `reach_b` for passing gradients down to
it. Both are measured (`flops`). The model is exact where each block lies on the way to the next one; where
blocks lie side by side (two towers; query, key and value at granularity ``module``) it is a lower bound,
since the way to one is not the way to the other: there `flops.backward_flops` measures any choice.

A communicated number is a float32, 4 bytes. Buffers (BatchNorm's statistics) travel both ways with every
client. Frozen weights (under LoRA) are not counted: every client has them before it begins; nor are blocks
that clients keep for themselves, from the round on in which they do. Nothing is compressed, and messages have
no headers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedtlu_fast.errors import InputError

NUMBER_BYTES = 4
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Kept:
    """What clients train and keep for themselves: it is sent neither way.

    Attributes:
        blocks: indices of these blocks.
        buffers: numbers of the buffers that go with them.
        alternate: whether these blocks are trained in a pass of their own, before the others.
    """

    blocks: Sequence[int] = ()
    buffers: int = 0
    alternate: bool = False


NOTHING = Kept()


@dataclass(frozen=True, eq=False)
class BlockCosts:
    """What the B blocks of a model cost; FLOPs are those of one sample.

    A product with a block's matrix takes as many FLOPs in the forward pass as the matrix's gradient in the
    backward pass. So `weight` is also each block's share of `forward`; what is left of it belongs to
    no block: attention's products of activations, and frozen matrices.

    Attributes:
        names: of the blocks, as in the layout.
        parameters: [B].
        buffers: numbers in the model's floating-point buffers.
        forward: FLOPs of a forward pass through the whole model, loss included.
        weight: [B] FLOPs of the gradients of the block's own parameters.
        reach: [B] FLOPs of passing gradients from the loss down to the block.
    """

    names: tuple[str, ...]
    parameters: Integers
    buffers: int
    forward: float
    weight: Floats
    reach: Floats

    @property
    def bytes(self) -> Integers:
        """[B], of each block's parameters."""
        return NUMBER_BYTES * self.parameters

    @property
    def model_bytes(self) -> int:
        """Of all parameters and buffers."""
        return int(self.bytes.sum()) + self.buffer_bytes

    @property
    def buffer_bytes(self) -> int:
        """Of the buffers."""
        return NUMBER_BYTES * self.buffers

    def backward(self, masks: ArrayLike) -> Floats:
        """FLOPs of one sample's backward pass when these blocks are trained; 0 for none.

        Args:
            masks: [..., B] bool.

        Returns:
            [...], one number for each choice.
        """
        chosen = self.check(masks)
        reach = np.where(chosen, self.reach, 0.0).max(axis=-1)
        found: Floats = reach + chosen @ self.weight
        return found

    def mask(self, blocks: Sequence[int]) -> Masks:
        """[B] bool from indices of blocks.

        Raises:
            InputError: there is no such block.
        """
        mask = np.zeros(len(self.names), np.bool_)
        for block in blocks:
            if not 0 <= block < len(mask):
                raise InputError("blocks", block, f"0 to {len(mask) - 1}, the blocks there are")
            mask[block] = True
        return mask

    def check(self, masks: ArrayLike) -> Masks:
        """The masks as an array [..., B].

        Raises:
            InputError: their last dimension is not B, or they are not bool.
        """
        chosen = np.asarray(masks)
        if chosen.dtype != np.bool_ or chosen.shape[-1:] != (len(self.names),):
            given = f"{chosen.dtype} of shape {chosen.shape}"
            raise InputError("masks", given, f"bool, with one column for each of {len(self.names)} blocks")
        return chosen
