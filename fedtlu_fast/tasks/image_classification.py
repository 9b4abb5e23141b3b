"""Image classification: a small CNN of our own, a ResNet or a Vision Transformer, or pre-trained weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedtlu_fast.config import ModelConfig
from fedtlu_fast.data.federation import FederatedData
from fedtlu_fast.tasks.classifier import Classifier
from fedtlu_fast.tasks.cnn import Cnn


@dataclass(frozen=True)
class ImageClassification(Classifier):
    """A batch is (images [B, C, H, W] uint8, labels [B]).

    Attributes:
        names: of the labels.
        mean: [C, 1, 1] float32, of every channel, on the model's device; what is subtracted.
        spread: [C, 1, 1] float32, likewise; what is divided by.
    """

    names: tuple[str, ...]
    mean: Tensor
    spread: Tensor

    @property
    def labels(self) -> tuple[str, ...]:
        """See `Classifier`."""
        return self.names

    def logits(self, inputs: Tensor) -> Tensor:
        """See `Classifier`; images are normalised where the model is."""
        logits: Tensor = self.model((inputs - self.mean) / self.spread)
        return logits


def build_image_classification(
    config: ModelConfig, data: FederatedData, seed: int, device: str
) -> ImageClassification:
    """A fresh model of the size in the settings.

    Args:
        config: architecture and size.
        data: images and labels.
        seed: of everything that is drawn.
        device: where model and statistics go.
    """
    channels, height, width = data.population.test[0].shape[1:]
    model: nn.Module = Cnn.build(config, (channels, height, width), data.outputs, seed)
    mean, spread = (torch.tensor(part)[:, None, None].to(device) for part in data.pixels)
    return ImageClassification(model.to(device), data.labels, mean, spread)
