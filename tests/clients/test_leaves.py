"""Tests that gradients reach a step the same way through the flat vector and past it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedtlu_fast.clients import leaves
from fedtlu_fast.clients.local import Local
from fedtlu_fast.clients.optimizer import AdamW, Optimizer, Sgd
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.data.population import Samples
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.tasks.supervised import SupervisedTask


class Net(nn.Module):
    """A network with a weight that is used twice and one that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(7, 7), nn.Linear(7, 3)
        self.idle = nn.Parameter(torch.ones(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.last(torch.relu(self.first(torch.relu(self.first(x)))))
        return found


def trained(optimizer: Optimizer, large: int, monkeypatch: pytest.MonkeyPatch, blocks: bool) -> torch.Tensor:
    monkeypatch.setattr(leaves, "LARGE", large)
    torch.manual_seed(0)
    model = Net()
    pool = (torch.randn(23, 7), torch.randint(3, (23,)))
    task = SupervisedTask(model, F.cross_entropy)
    layout = ParameterLayout.from_module(model)
    local = Local(optimizer=optimizer, batch_size=5, steps=7, clip_norm=None)
    trainer = LocalTrainer(task, layout, local, seed=3)
    start = layout.flatten(model)
    chosen = range(1, len(layout.blocks)) if blocks else None
    update = trainer.train(start, torch.empty(0), Samples(pool, np.arange(23)), 1, 4, chosen)
    return update.params.clone()


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize(
    "optimizer", [Sgd(0.1), Sgd(0.1, 0.9, 0.01), AdamW(0.01, 0.1)], ids=["sgd", "momentum", "adamw"]
)
def test_steps_on_each_tensor_give_the_bits_of_a_step_on_the_flat_vector(
    optimizer: Optimizer, blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = trained(optimizer, 10**9, monkeypatch, blocks)
    each = trained(optimizer, 0, monkeypatch, blocks)
    assert torch.equal(flat, each)


def test_a_probe_after_a_step_past_the_flat_vector_reads_the_flat_vector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leaves, "LARGE", 0)
    torch.manual_seed(0)
    model = Net()
    pool = (torch.randn(9, 7), torch.randint(3, (9,)))
    layout = ParameterLayout.from_module(model)
    task = SupervisedTask(model, F.cross_entropy)
    trainer = LocalTrainer(task, layout, Local(Sgd(0.1), batch_size=9, steps=1, clip_norm=None), 0)
    start, samples = layout.flatten(model), Samples(pool, np.arange(9))
    trainer.train(start, torch.empty(0), samples, 1, 0)
    found = trainer.gradient(start, torch.empty(0), samples, 1, 1, 0).clone()
    fresh = Net()
    layout.bind_(fresh, start.clone())
    F.cross_entropy(fresh(pool[0]), pool[1]).backward()
    wanted = [torch.zeros_like(p) if p.grad is None else p.grad for p in fresh.parameters()]
    names = [name for name, _ in fresh.named_parameters()]
    views = layout.views(found)
    for name, grad in zip(names, wanted, strict=True):
        torch.testing.assert_close(views[name], grad)
