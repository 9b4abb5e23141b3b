"""The costs of a model's blocks: bytes and floating-point operations (FLOPs) of training them (ours).

To train a block, the gradient has to pass from the loss down to it, so that only the layers below the lowest
trained block cost nothing. A backward pass that trains the blocks S therefore takes

    backward(S) = max over b in S of reach_b + sum over b in S of weight_b

FLOPs, where `weight_b` is for the gradients of the block's own parameters and `reach_b` for passing gradients
down to the block. Both are measured (`flops`). The formula is exact if each block lies on the path to the
next one. For parallel blocks (two towers; query, key and value at granularity ``module``) it is a lower
bound, because the path to one block is not the path to the other; `flops.backward_flops` measures the FLOPs
of any choice.

A number that is sent is a float32 of 4 bytes. The exception are the parameters that clients send through a
step that compresses: `ClientStep.message_bytes` says how many bytes they take. Buffers (BatchNorm's
statistics) are sent to and from every client and are not compressed. Frozen weights (under LoRA) are not
counted, because every client has them from the start; personal blocks are not counted from the first round in
which clients keep them. Messages have no headers.
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
    """The personal blocks, which clients train and keep; they are sent neither to nor from clients.

    Attributes:
        blocks: indices of the personal blocks.
        buffers: number of numbers in their buffers.
        alternate: whether the personal blocks are trained in a separate pass before the others (FedRep).
    """

    blocks: Sequence[int] = ()
    buffers: int = 0
    alternate: bool = False


NOTHING = Kept()


@dataclass(frozen=True, eq=False)
class BlockCosts:
    """The costs of the B blocks of a model; FLOPs are those of one sample.

    A product with a block's matrix takes as many FLOPs in the forward pass as the gradient of the matrix
    takes in the backward pass. So `weight` is also each block's part of `forward`; the rest of `forward`
    belongs to no block: attention's products of activations, and frozen matrices.

    Attributes:
        names: [B], names of the blocks, as in the layout.
        parameters: [B] int64, number of parameters of each block.
        buffers: number of numbers in the model's floating-point buffers.
        forward: FLOPs of a forward pass through the whole model with its loss.
        weight: [B] float64, FLOPs of the gradients of each block's own parameters.
        reach: [B] float64, FLOPs of passing gradients from the loss down to each block.
    """

    names: tuple[str, ...]
    parameters: Integers
    buffers: int
    forward: float
    weight: Floats
    reach: Floats

    @property
    def bytes(self) -> Integers:
        """[B] int64, the bytes of each block's parameters."""
        return NUMBER_BYTES * self.parameters

    @property
    def model_bytes(self) -> int:
        """The bytes of all parameters and buffers."""
        return int(self.bytes.sum()) + self.buffer_bytes

    @property
    def buffer_bytes(self) -> int:
        """The bytes of the buffers."""
        return NUMBER_BYTES * self.buffers

    def backward(self, masks: ArrayLike) -> Floats:
        """Returns the FLOPs of one sample's backward pass if these blocks are trained; 0 for no block.

        Args:
            masks: [..., B] bool, true for the trained blocks of each choice.

        Returns:
            [...] float64, one number for each choice.
        """
        chosen = self.check(masks)
        reach = np.where(chosen, self.reach, 0.0).max(axis=-1)
        found: Floats = reach + chosen @ self.weight
        return found

    def mask(self, blocks: Sequence[int]) -> Masks:
        """Returns a mask [B] bool from the indices of blocks.

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
        """Checks masks and returns them as an array [..., B].

        Raises:
            InputError: their last dimension is not B, or they are not bool.
        """
        chosen = np.asarray(masks)
        if chosen.dtype != np.bool_ or chosen.shape[-1:] != (len(self.names),):
            given = f"{chosen.dtype} of shape {chosen.shape}"
            raise InputError("masks", given, f"bool, with one column for each of {len(self.names)} blocks")
        return chosen
