"""Runs one federated round in plain PyTorch: the training loop is yours, and three functions choose blocks.

`score` ranks the blocks of the averaged change, `choose` keeps the best ones of each group of like blocks,
and `apply_` adds their change to the global model. All other blocks keep their bits.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fedtlu_fast as ft


def build_model() -> nn.Module:
    """Builds four like blocks between an input and an output layer."""
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(4)))
    return nn.Sequential(nn.Linear(5, 8), blocks, nn.Linear(8, 3))


def train_(model: nn.Module, inputs: Tensor, targets: Tensor, steps: int, lr: float) -> None:
    """Trains a client by plain gradient descent on all of its samples."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()


def federated_round_(
    model: nn.Module, clients: list[tuple[Tensor, Tensor]], keep: int, steps: int, lr: float
) -> tuple[str, ...]:
    """Runs one round on the global model and returns the names of the blocks that changed."""
    before = copy.deepcopy(model.state_dict())
    total = sum(len(targets) for _, targets in clients)
    change = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in before.items()}
    for inputs, targets in clients:
        local = copy.deepcopy(model)
        train_(local, inputs, targets, steps, lr)
        for name, tensor in local.state_dict().items():
            change[name] += len(targets) / total * (tensor.double() - before[name])

    after = {name: before[name] + change[name] for name in before}
    scores = ft.score(before, after)
    chosen = ft.choose(scores, keep=keep)
    ft.apply_(model, change, chosen)
    print(scores)
    return chosen.names


if __name__ == "__main__":
    torch.manual_seed(0)
    held = [(torch.randn(n, 5), torch.randint(0, 3, (n,))) for n in (8, 12, 20)]
    print("changed:", *federated_round_(build_model(), held, keep=2, steps=3, lr=0.1))
