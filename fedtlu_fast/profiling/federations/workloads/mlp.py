"""mlp: a small perceptron on vectors of 64 numbers, whose labels follow one linear rule with noise."""

from __future__ import annotations

import torch
from torch import nn

from .protocol import Samples, Settings, Workload

FEATURES, CLASSES = 64, 10


class MlpWorkload(Workload):
    """A perceptron of 64-64-10, 4,810 parameters; many clients with little to do."""

    name = "mlp"
    settings = Settings(clients=10_000, cohort=1000, batch=10, steps=2)

    def make_model(self) -> nn.Module:
        """See `Workload`."""
        return nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.ReLU(), nn.Linear(FEATURES, CLASSES))

    def make_truth_(self, generator: torch.Generator) -> None:
        """See `Workload`."""
        self._truth = torch.randn(FEATURES, CLASSES, generator=generator)

    def draw(self, generator: torch.Generator) -> Samples:
        """See `Workload`."""
        rows = self.settings.samples
        inputs = torch.randn(rows, FEATURES, generator=generator)
        noise = torch.randn(rows, CLASSES, generator=generator)
        return inputs, (inputs @ self._truth + noise).argmax(1)
