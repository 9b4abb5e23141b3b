"""Image classification: predicts a label for every image, which is scaled on the model's device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from fedtlu_fast.data.federated import Encoded, FederatedData
from fedtlu_fast.data.images import image_samples
from fedtlu_fast.data.sources.source import ImageSource, Source
from fedtlu_fast.models.architecture import Architecture, Needs, of_transformers
from fedtlu_fast.parts import part
from fedtlu_fast.tasks.builder import Reading, TaskBuilder
from fedtlu_fast.tasks.classifier import Classifier
from fedtlu_fast.tasks.pretrained_check import check_viewer
from fedtlu_fast.tasks.vision import Vision, image_shape, pretrained_vision


@dataclass(frozen=True)
class ImageClassification(Classifier):
    """Classification of images; a batch is (images [B, C, H, W] uint8, labels [B] int64).

    Attributes:
        names: names of the labels.
        mean: [C, 1, 1] float32, on the model's device, subtracted from the images. With three channels it
            turns greyscale images [B, 1, H, W] into three channels by broadcasting.
        spread: [C, 1, 1] float32, on the model's device; the images are divided by it.
        size: height and width to which images are scaled; None: they keep their size.
    """

    names: tuple[str, ...]
    mean: Tensor
    spread: Tensor
    size: tuple[int, int] | None = None

    @override
    @property
    def labels(self) -> tuple[str, ...]:
        return self.names

    @override
    def logits(self, inputs: Tensor) -> Tensor:
        images = (inputs - self.mean) / self.spread
        if self.size is not None and images.shape[-2:] != self.size:
            images = F.interpolate(images, self.size, mode="bicubic", antialias=True)
        theirs = of_transformers(self.model)
        found = self.model(pixel_values=images).logits if theirs else self.model(images)
        logits: Tensor = found.float()
        return logits


@part
class ImageClassificationBuilder(TaskBuilder):
    """Builds the task that predicts a label for every image."""

    reads = (ImageSource,)
    own_source = "digits"
    what = "images"
    architectures = ("cnn", "resnet", "vit")
    cuts = False

    @override
    def read(self, source: Source, reading: Reading) -> Encoded | FederatedData:
        assert isinstance(source, ImageSource)
        return image_samples(source.images(), str(source), test_fraction=reading.test_fraction)

    @override
    def build(self, data: FederatedData, architecture: Architecture, seed: int) -> ImageClassification:
        needs = Needs("sample", data.inputs, data.outputs, shape=image_shape(data), labels=data.labels)
        return _task(Vision(architecture.build(needs, seed), *data.pixels), data)

    @override
    def build_pretrained(self, data: FederatedData, name: str, seed: int) -> ImageClassification:
        task = _task(pretrained_vision(name, data, seed), data)
        check_viewer(task, name, data)
        return task


def _task(found: Vision, data: FederatedData) -> ImageClassification:
    mean, spread = (torch.tensor(part)[:, None, None] for part in (found.mean, found.spread))
    return ImageClassification(found.model, data.labels, mean, spread, found.size)
