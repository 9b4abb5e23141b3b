"""The multi-layer perceptron."""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from typing_extensions import override

from fedtlu_fast.models.architecture import INITIAL, Architecture, Needs, Size
from fedtlu_fast.parts import part
from fedtlu_fast.randomness import torch_seeded


@part
class Perceptron(Architecture):
    """A perceptron ``Linear, ReLU, ..., Linear`` with PyTorch's own initialisation.

    Attributes:
        hidden: widths of the hidden layers; empty for a linear model.
    """

    hidden: tuple[Size, ...] = (64,)

    @override
    def build(self, needs: Needs, seed: int) -> nn.Module:
        with torch_seeded(seed, INITIAL):
            layers: list[nn.Module] = []
            for width, following in pairwise([needs.inputs, *self.hidden, needs.outputs]):
                layers += [nn.Linear(width, following), nn.ReLU()]
            return nn.Sequential(*layers[:-1])
