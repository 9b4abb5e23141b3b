"""Defines an own task on torch Datasets: a regression, which is not among the tasks of fedtlu-fast."""

import torch
from torch import nn

import fedtlu_fast as ft


class Waves(torch.utils.data.Dataset):
    """Holds points of a sine with the client's own phase."""

    def __init__(self, client: int, count: int = 24) -> None:
        draws = torch.Generator().manual_seed(client)
        self.inputs = 6 * torch.rand(count, 1, generator=draws)
        self.targets = torch.sin(self.inputs + 0.1 * (client % 5))

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inputs[index], self.targets[index]


class Wave(nn.Module):
    """Predicts y from x by three like blocks between an input and an output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(1, 16), nn.Linear(16, 1)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(3))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps inputs [B, 1] to predictions [B, 1]."""
        hidden = torch.tanh(self.first(inputs))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.last(hidden)


def squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Returns the squared error of each sample, [B]."""
    return (outputs - targets).square().mean(dim=1)


def worst(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Returns the largest absolute error of each sample, [B]."""
    return (outputs - targets).abs().amax(dim=1)


def federation(**more) -> ft.Federation:
    """Makes a federation of twenty clients; `more` are arguments of `ft.Federation`."""
    torch.manual_seed(0)
    task = ft.SupervisedTask(Wave(), squared_error, {"worst": ft.Metric(worst, better="lower")})
    data = ft.Datasets(train=[Waves(client) for client in range(20)], test=Waves(99, 100))
    return ft.Federation(task, data, **{"cohort": 5, "keep": 1, "executor": "serial", **more})
