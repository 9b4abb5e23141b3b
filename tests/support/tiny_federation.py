"""The task and data that the documentation takes for granted: four like layers, a head, six clients."""

import torch
from torch import nn
from torch.nn import functional as F

import fedtlu_fast as ft


def held(samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns inputs [samples, 8] and labels [samples] of three kinds."""
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(samples, 8, generator=draws), torch.randint(3, (samples,), generator=draws)


torch.manual_seed(0)
task = ft.SupervisedTask(
    nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)), nn.Linear(8, 3)), F.cross_entropy
)
data = ft.Datasets(train=[held(20, client) for client in range(6)], test=held(9, 99))
