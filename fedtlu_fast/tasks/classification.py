"""Classification of feature vectors with a multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from fedtlu_fast.data.federated import Encoded, FederatedData
from fedtlu_fast.data.sources.source import Source, VectorSource
from fedtlu_fast.part import part
from fedtlu_fast.randomness import torch_seeded
from fedtlu_fast.tasks.builder import Reading, TaskBuilder
from fedtlu_fast.tasks.classifier import Classifier


class Classification(Classifier):
    """A batch is (features [B, F] float32, labels [B])."""

    def logits(self, inputs: Tensor) -> Tensor:
        """See `Classifier`."""
        found: Tensor = self.model(inputs)
        return found


@part
class ClassificationBuilder(TaskBuilder):
    """A label for every vector of numbers."""

    reads = (VectorSource,)

    def read(self, source: Source, reading: Reading) -> Encoded | FederatedData:
        """See `TaskBuilder`."""
        assert isinstance(source, VectorSource)
        return source.vectors(reading.clients, reading.seed, reading.local_fraction)


def build_mlp(inputs: int, hidden: Sequence[int], outputs: int, seed: int) -> nn.Module:
    """``Linear, ReLU, ..., Linear`` with PyTorch's own initialisation.

    Args:
        inputs: features of a sample.
        hidden: widths of the layers in between; none for a linear model.
        outputs: classes.
        seed: of the initialisation.
    """
    with torch_seeded(seed, "initial weights"):
        layers: list[nn.Module] = []
        for width, following in pairwise([inputs, *hidden, outputs]):
            layers += [nn.Linear(width, following), nn.ReLU()]
        return nn.Sequential(*layers[:-1])
