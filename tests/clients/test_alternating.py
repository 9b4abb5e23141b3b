"""FedRep's two passes, compared with the same passes in plain torch."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fedtlu_fast import ParameterLayout
from fedtlu_fast.clients.alternating import train_in_turn
from fedtlu_fast.clients.trainer import ClientStart
from fedtlu_fast.clients.training import LocalTrainer, batches
from fedtlu_fast.config import TrainingConfig
from fedtlu_fast.data.population import Samples
from fedtlu_fast.randomness import generator
from fedtlu_fast.tasks.classification import Classification

SEED, ROUND, CLIENT = 11, 2, 7


def made(**training):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
    draws = generator(0, "samples")
    x = torch.from_numpy(draws.standard_normal((30, 5), dtype=np.float32))
    samples = Samples((x, torch.from_numpy(draws.integers(0, 3, 30))), np.arange(30))
    layout, plain = ParameterLayout.from_module(model), copy.deepcopy(model)
    config = TrainingConfig(**{"lr": 0.1, "local_steps": 4, "clip_norm": None, **training}).local
    return LocalTrainer(Classification(model), layout, config, SEED), plain, samples


def by_torch(plain, samples, config):
    """Trains the head first and then the base, which starts from the model with the new head."""
    losses = []
    for part, purpose in ((plain[3:], "first batches"), (plain[:3], "batches")):
        start = [param.detach().clone() for param in part.parameters()]
        optimizer = torch.optim.SGD(
            part.parameters(), lr=config.optimizer.lr, momentum=config.optimizer.momentum
        )
        for places in batches(30, config, generator(SEED, purpose, ROUND, CLIENT)):
            optimizer.zero_grad()
            x, labels = samples.take(places)
            loss = nn.functional.cross_entropy(plain(x), labels)
            pairs = zip(part.parameters(), start, strict=True)
            drift = sum((param - first).square().sum() for param, first in pairs)
            (loss + config.proximal_mu / 2 * drift).backward()
            if config.clip_norm is not None:
                nn.utils.clip_grad_norm_(part.parameters(), config.clip_norm)
            optimizer.step()
            losses.append(loss.item())
    return np.mean(losses)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"proximal_mu": 1.5, "clip_norm": 0.1}], ids=str)
def test_the_head_is_trained_first_and_then_the_rest(options):
    trainer, plain, samples = made(**options)
    layout, start = trainer.layout, trainer.params.clone()
    buffers = layout.flatten_buffers(trainer.task.model)
    given = start.clone(), buffers.clone()
    found = train_in_turn(trainer.train, ClientStart(start, buffers, samples, (0, 1), (2,)), ROUND, CLIENT)
    loss = by_torch(plain, samples, trainer.local)
    torch.testing.assert_close(found.params, layout.flatten(plain), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.buffers, layout.flatten_buffers(plain), rtol=1e-5, atol=1e-6)
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert (found.steps, found.samples, found.is_sound(buffers)) == (8, 30, True)
    assert torch.equal(start, given[0])
    assert torch.equal(buffers, given[1])


def test_a_loss_that_is_nan_in_the_first_pass_is_reported():
    trainer, _, samples = made()
    start = trainer.params.clone()
    start[-1] = float("nan")
    buffers = trainer.layout.flatten_buffers(trainer.task.model)
    found = train_in_turn(trainer.train, ClientStart(start, buffers, samples, (0, 1), (2,)), ROUND, CLIENT)
    assert not found.is_sound(buffers)
