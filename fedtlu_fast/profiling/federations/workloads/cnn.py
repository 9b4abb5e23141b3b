"""cnn: images as in FEMNIST (28x28, 62 classes) and the network of two convolutions that is used for it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .protocol import Samples, Settings, Workload

SIDE, CLASSES = 28, 62


class Network(nn.Module):
    """Two convolutions of 3x3, a pooling and two linear layers, 1.2 million parameters.

    The network for EMNIST of Reddi et al. (arXiv 2003.00295, table 4), without its dropout, so that losses of
    simulators can be compared. It takes images as rows of 784 numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.dense1 = nn.Linear(64 * 12 * 12, 128)
        self.dense2 = nn.Linear(128, CLASSES)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, classes] of images [B, 784]."""
        x = pixels.view(-1, 1, SIDE, SIDE)
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        logits: torch.Tensor = self.dense2(F.relu(self.dense1(x.flatten(1))))
        return logits


class CnnWorkload(Workload):
    """Images of 62 classes; each client writes in its own way and has its own favourite classes."""

    name = "cnn"
    settings = Settings(clients=1000, cohort=100, batch=10, steps=2, lr=0.05)

    def make_model(self) -> nn.Module:
        """See `Workload`."""
        return Network()

    def make_truth_(self, generator: torch.Generator) -> None:
        """See `Workload`."""
        self._shapes = _smooth(CLASSES, generator)

    def draw(self, generator: torch.Generator) -> Samples:
        """See `Workload`."""
        rows = self.settings.samples
        favourites = torch.rand(CLASSES, generator=generator) ** 3 + 0.01
        labels = torch.multinomial(favourites, rows, replacement=True, generator=generator)
        hand = 0.5 * _smooth(1, generator)
        noise = 0.3 * torch.randn(rows, SIDE * SIDE, generator=generator)
        return self._shapes[labels] + hand + noise, labels


def _smooth(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draws images [count, 784] that vary slowly from pixel to pixel."""
    coarse = torch.randn(count, 1, 7, 7, generator=generator)
    return F.interpolate(coarse, (SIDE, SIDE), mode="bilinear", align_corners=False).flatten(1)
