"""Our small convolutional network: a stem, blocks of equal shape, and a head.

All blocks have the same width, unlike in most networks, so that they can be compared with each other. The
default is group normalisation, because batch statistics of clients with different data do not fit each other
(Hsieh et al., arXiv 1910.00189).
"""

from __future__ import annotations

from math import gcd, log2

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from fedtlu_fast.models.architecture import INITIAL, Architecture, Needs, Norm, Size
from fedtlu_fast.parts import part
from fedtlu_fast.randomness import torch_seeded

SMALLEST = 4
"""Smallest side, in pixels, to which images are halved; the head has a weight for each remaining place."""
GROUPS = 8
"""Number of groups in group normalisation, if it divides the number of channels."""


@part
class CnnModel(Architecture):
    """Our convolutional network.

    Attributes:
        layers: number of blocks.
        width: number of channels.
        norm: normalisation of the channels: group | batch | none.
    """

    layers: Size = 6
    width: Size = 64
    norm: Norm = "group"

    @override
    def build(self, needs: Needs, seed: int) -> Cnn:
        channels, height, width = needs.shape
        return Cnn.build(self, (channels, height, width), needs.outputs, seed)


class Cnn(nn.Module):
    """Maps images [B, C, H, W] to logits [B, outputs]."""

    def __init__(self, size: CnnModel, shape: tuple[int, int, int], outputs: int) -> None:
        """Draws the initial weights from torch's generator; see `build`.

        Args:
            size: blocks, width and normalisation.
            shape: channels, height and width of an image.
            outputs: number of classes.
        """
        super().__init__()
        channels, *sides = shape
        self.halved = halvings(min(sides), size.layers)
        self.stem = nn.Conv2d(channels, size.width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        height, width = (side >> len(self.halved) for side in sides)
        self.head = nn.Linear(size.width * height * width, outputs)

    @classmethod
    def build(cls, size: CnnModel, shape: tuple[int, int, int], outputs: int, seed: int) -> Cnn:
        """Makes a network whose weights depend on the seed only; other arguments are those of the class."""
        with torch_seeded(seed, INITIAL):
            return cls(size, shape, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits [B, outputs] for images [B, C, H, W]."""
        x = self.stem(images)
        for index, block in enumerate(self.blocks):
            if index in self.halved:
                x = F.max_pool2d(x, 2)
            x = block(x)
        logits: Tensor = self.head(torch.relu(x).flatten(1))
        return logits


class Block(nn.Module):
    """Normalisation, ReLU and a convolution, whose result is added to the block's input."""

    def __init__(self, size: CnnModel) -> None:
        super().__init__()
        self.norm = normalisation(size.norm, size.width)
        self.conv = nn.Conv2d(size.width, size.width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, width, H, W] to the same shape."""
        added: Tensor = self.conv(torch.relu(self.norm(x)))
        return x + added


def halvings(side: int, blocks: int) -> tuple[int, ...]:
    """Returns the blocks before which images are halved: evenly spread, beginning with the first block."""
    times = min(blocks, max(0, int(log2(side / SMALLEST)))) if side >= SMALLEST else 0
    return tuple(index * blocks // times for index in range(times))


def normalisation(kind: str, channels: int) -> nn.Module:
    """Makes a normalisation of images' channels of the kind ``group``, ``batch`` or ``none``."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(gcd(GROUPS, channels), channels) if kind == "group" else nn.Identity()
