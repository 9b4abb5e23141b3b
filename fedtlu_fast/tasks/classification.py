"""Classification of feature vectors with a multi-layer perceptron."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from fedtlu_fast.data.federated import Encoded, FederatedData
from fedtlu_fast.data.sources.source import Source, VectorSource
from fedtlu_fast.errors import InputError
from fedtlu_fast.models.architecture import Architecture, Needs
from fedtlu_fast.parts import part
from fedtlu_fast.tasks.builder import Reading, TaskBuilder
from fedtlu_fast.tasks.classifier import Classifier


class Classification(Classifier):
    """Classification of vectors; a batch is (features [B, F] float32, labels [B] int64)."""

    @override
    def logits(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.model(inputs)
        return found


@part
class ClassificationBuilder(TaskBuilder):
    """Builds the task that predicts a label for every vector of numbers."""

    reads = (VectorSource,)
    architectures = ("mlp",)

    @override
    def read(self, source: Source, reading: Reading) -> Encoded | FederatedData:
        assert isinstance(source, VectorSource)
        return source.vectors(reading.clients, reading.seed, reading.local_fraction)

    @override
    def build(self, data: FederatedData, architecture: Architecture, seed: int) -> Classification:
        labels = tuple(map(str, range(data.outputs)))
        needs = Needs("sample", data.inputs, data.outputs, labels=labels)
        return Classification(architecture.build(needs, seed))

    def build_pretrained(self, data: FederatedData, name: str, seed: int) -> Classification:
        """Raises an InputError, because there are no pre-trained models for vectors."""
        expected = "null with task=classification, which is of vectors"
        raise InputError("model.pretrained", name, expected)
