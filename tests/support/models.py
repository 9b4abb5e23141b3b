"""Small models of our own architectures."""

from collections.abc import Sequence

from torch import nn

from fedtlu_fast.models.architecture import Needs
from fedtlu_fast.models.perceptron import Perceptron


def build_mlp(inputs: int, hidden: Sequence[int], outputs: int, seed: int) -> nn.Module:
    """Makes a perceptron."""
    return Perceptron(tuple(hidden)).build(Needs("sample", inputs, outputs), seed)
