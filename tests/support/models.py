"""Small models of ours."""

from collections.abc import Sequence

from torch import nn

from fedtlu_fast.models.architecture import Needs
from fedtlu_fast.models.perceptron import Perceptron


def build_mlp(inputs: int, hidden: Sequence[int], outputs: int, seed: int) -> nn.Module:
    """A perceptron."""
    return Perceptron(tuple(hidden)).build(Needs("sample", inputs, outputs), seed)
