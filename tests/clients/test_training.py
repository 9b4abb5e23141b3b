"""Local training, compared with torch on a plain model; one client leaves nothing behind for the next."""

import copy
from collections import Counter
from dataclasses import dataclass
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.model_zoo import gpt2
from support.sampling import examples
from torch import nn

from fedtlu_fast import ParameterLayout
from fedtlu_fast.clients.gradients import add_proximal_, clip_
from fedtlu_fast.clients.optimizer import AdamW
from fedtlu_fast.clients.training import LocalTrainer, batches
from fedtlu_fast.config import TrainingConfig
from fedtlu_fast.data.population import Samples
from fedtlu_fast.randomness import generator
from fedtlu_fast.tasks.language_modelling import LanguageModelling

WIDTH, SEED = 5, 11


@dataclass(frozen=True)
class Regression:
    """A batch of one tensor [B, WIDTH + 1]: inputs and a target."""

    model: nn.Module

    def loss(self, batch):
        return self.losses(batch).mean()

    def losses(self, batch):
        (samples,) = batch
        return (self.model(samples[:, :-1]).squeeze(1) - samples[:, -1]).square()

    def counts(self, batch):
        raise NotImplementedError

    def trim(self, batch):
        return batch

    def evaluate(self, batch, batch_size):
        raise NotImplementedError


def mlp(*extra):
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(WIDTH, 8), *extra, nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))


@pytest.fixture
def samples():
    return torch.from_numpy(generator(0, "samples").standard_normal((60, WIDTH + 1))).float()


def rows_of(*bounds):
    return np.arange(*bounds)


class Federation:
    """A trainer and the global vectors it starts from."""

    def __init__(self, model, samples, task=Regression, seed=SEED, **training):
        self.plain = copy.deepcopy(model)
        self.config = TrainingConfig(**{"clip_norm": None, "lr": 0.1, "local_steps": 6, **training}).local
        self.layout = ParameterLayout.from_module(model)
        self.samples = samples
        self.params = self.layout.flatten(model)
        self.buffers = self.layout.flatten_buffers(model)
        self.trainer = LocalTrainer(task(model), self.layout, self.config, seed)

    def train(self, rows, round_index=1, client=0):
        held = Samples((self.samples,), rows)
        got = self.trainer.train(self.params, self.buffers, held, round_index, client)
        return copy.copy(got), got.params.clone(), got.buffers.clone()


def plain_training(federation, rows, optimizer, *, mu=0.0, clip=None, round_index=1, client=0):
    """Trains with plain torch: autograd over the whole objective, torch's optimizer over separate tensors."""
    model = copy.deepcopy(federation.plain).train()
    start = [param.detach().clone() for param in model.parameters()]
    step_of = optimizer(model.parameters())
    losses = []
    for places in batches(len(rows), federation.config, generator(SEED, "batches", round_index, client)):
        step_of.zero_grad()
        loss = Regression(model).loss(Samples((federation.samples,), rows).take(places))
        losses.append(loss.item())
        drift = sum((w - w0).square().sum() for w, w0 in zip(model.parameters(), start, strict=True))
        (loss + mu / 2 * drift).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        step_of.step()
    return federation.layout.flatten(model), losses


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


# --- optimizers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"weight_decay": 0.05},
        {"momentum": 0.5, "weight_decay": 0.01, "lr": 0.03},
        {"optimizer": "adamw", "lr": 0.01},
        {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.3},
    ],
    ids=str,
)
def test_training_equals_torch_on_separate_tensors(samples, options):
    federation = Federation(mlp(), samples, **options)
    config = federation.config

    def optimizer(params):
        if isinstance(config.optimizer, AdamW):
            return torch.optim.AdamW(
                params, lr=config.optimizer.lr, weight_decay=config.optimizer.weight_decay
            )
        return torch.optim.SGD(
            params,
            lr=config.optimizer.lr,
            momentum=config.optimizer.momentum,
            weight_decay=config.optimizer.weight_decay,
        )

    update, params, _ = federation.train(rows_of(30))
    expected, losses = plain_training(federation, rows_of(30), optimizer)
    close(params, expected)
    assert (params - federation.params).abs().max() > 1e-3, "it moved"
    assert update.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert (update.samples, update.steps, update.is_sound(federation.buffers)) == (30, 6, True)


@pytest.mark.parametrize("limit", [0.05, 0.5, 1e6])
def test_clipping_is_by_the_norm_of_the_whole_gradient(samples, limit):
    federation = Federation(mlp(), samples * 3, clip_norm=limit)
    _, params, _ = federation.train(rows_of(30))
    expected, _ = plain_training(
        federation, rows_of(30), lambda params: torch.optim.SGD(params, lr=0.1), clip=limit
    )
    close(params, expected)


def test_clip_scales_to_the_limit_and_leaves_smaller_gradients_their_bits():
    flat = nn.Parameter(torch.zeros(4))
    flat.grad = torch.tensor([3.0, 0.0, -4.0, 0.0])
    clip_(flat, 10.0)
    assert flat.grad.tolist() == [3.0, 0.0, -4.0, 0.0]
    clip_(flat, None)
    assert flat.grad.tolist() == [3.0, 0.0, -4.0, 0.0]
    clip_(flat, 1.0)
    assert flat.grad.tolist() == pytest.approx([0.6, 0.0, -0.8, 0.0], rel=1e-5)


# --- FedProx -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mu", [0.0, 0.01, 1.0, 7.5])
def test_the_proximal_gradient_equals_autograds(mu, generator):
    params = torch.randn(40, generator=generator)
    start = torch.randn(40, generator=generator)
    grads = torch.randn(40, generator=generator)
    variable = params.clone().requires_grad_()
    (mu / 2 * (variable - start).square().sum()).backward()
    expected = grads + variable.grad
    given = grads.clone()
    add_proximal_(grads, params, start, mu)
    close(grads, expected)
    if not mu:
        assert torch.equal(grads, given)


@pytest.mark.parametrize("mu", [0.3, 3.0])
def test_fedprox_training_equals_the_loss_with_its_term(samples, mu):
    federation = Federation(mlp(), samples, proximal_mu=mu)
    _, params, _ = federation.train(rows_of(30))
    expected, _ = plain_training(federation, rows_of(30), lambda p: torch.optim.SGD(p, lr=0.1), mu=mu)
    close(params, expected)
    _, free, _ = Federation(mlp(), samples).train(rows_of(30))
    assert (params - federation.params).norm() < (free - federation.params).norm()


def test_fedprox_is_clipped_with_the_loss(samples):
    federation = Federation(mlp(), samples, proximal_mu=2.0, clip_norm=0.1)
    _, params, _ = federation.train(rows_of(30))
    expected, _ = plain_training(
        federation, rows_of(30), lambda p: torch.optim.SGD(p, lr=0.1), mu=2.0, clip=0.1
    )
    close(params, expected)


# --- batches -------------------------------------------------------------------------------------


def drawn(rows, seed=0, **training):
    places = batches(len(rows), TrainingConfig(**training).local, generator(seed, "batches"))
    return [rows[batch] for batch in places]


@pytest.mark.parametrize(
    ("count", "training", "sizes"),
    [
        (10, {"local_steps": 1}, [4]),
        (10, {"local_steps": 3}, [4, 4, 2]),
        (10, {"local_steps": 5}, [4, 4, 2, 4, 4]),
        (10, {"local_epochs": 1}, [4, 4, 2]),
        (10, {"local_epochs": 0.5}, [4, 4]),
        (10, {"local_epochs": 0.01}, [4]),
        (10, {"local_epochs": 1.5}, [4, 4, 2, 4, 4]),
        (10, {"local_epochs": 2}, [4, 4, 2] * 2),
        (8, {"local_epochs": 1}, [4, 4]),
        (3, {"local_epochs": 1}, [3]),
        (1, {"local_steps": 3}, [1, 1, 1]),
    ],
)
def test_number_and_sizes_of_batches(count, training, sizes):
    assert [len(batch) for batch in drawn(rows_of(count), batch_size=4, **training)] == sizes


@pytest.mark.parametrize(("epochs", "per_epoch", "steps"), [(0.07, 100, 7), (0.28, 25, 7), (0.14, 50, 7)])
def test_fractional_epochs_are_taken_as_they_are_written(epochs, per_epoch, steps):
    assert ceil(epochs * per_epoch) == steps + 1, "float arithmetic gets it wrong"
    assert len(drawn(rows_of(per_epoch), batch_size=1, local_epochs=epochs)) == steps


@examples(60)
@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 3), st.integers(0, 99))
def test_every_sample_is_seen_once_in_every_epoch(count, batch_size, epochs, seed):
    rows = rows_of(100, 100 + count)
    got = drawn(rows, seed, batch_size=batch_size, local_epochs=epochs)
    per_epoch = len(got) // epochs
    for epoch in range(epochs):
        seen = np.concatenate(got[epoch * per_epoch : (epoch + 1) * per_epoch])
        assert Counter(seen.tolist()) == Counter(rows.tolist())


def test_epochs_are_shuffled_anew_and_drawn_from_the_seed():
    first, second = np.split(np.concatenate(drawn(rows_of(50), batch_size=50, local_epochs=2)), 2)
    assert first.tolist() != second.tolist()
    assert first.tolist() != list(range(50))
    again = drawn(rows_of(50), batch_size=50, local_epochs=1)[0]
    assert again.tolist() == first.tolist()
    assert drawn(rows_of(50), seed=1, batch_size=50, local_epochs=1)[0].tolist() != first.tolist()


# --- nothing is left behind ----------------------------------------------------------------------

MODELS = {
    "plain": mlp,
    "dropout": lambda: mlp(nn.Dropout(0.5)),
    "batch norm": lambda: mlp(nn.BatchNorm1d(8)),
    # Its running mean weighs by a counter of batches: an integer buffer, which does not travel.
    "cumulative batch norm": lambda: mlp(nn.BatchNorm1d(8, momentum=None)),
}


@pytest.mark.parametrize("training", [{}, {"momentum": 0.9}, {"optimizer": "adamw", "lr": 0.01}], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_a_client_has_the_same_bits_alone_and_after_others(samples, name, training):
    alone = Federation(MODELS[name](), samples, **training)
    _, params, buffers = alone.train(rows_of(20, 36), round_index=4, client=2)
    crowded = Federation(MODELS[name](), samples, **training)
    for client in (0, 1, 5):
        crowded.train(rows_of(client, client + 16), round_index=4, client=client)
    torch.rand(13)
    _, later_params, later_buffers = crowded.train(rows_of(20, 36), round_index=4, client=2)
    assert torch.equal(params, later_params)
    assert torch.equal(buffers, later_buffers)


def test_the_global_vectors_are_not_changed(samples):
    federation = Federation(MODELS["batch norm"](), samples)
    params, buffers = federation.params.clone(), federation.buffers.clone()
    federation.train(rows_of(20))
    assert torch.equal(federation.params, params)
    assert torch.equal(federation.buffers, buffers)


@pytest.mark.parametrize("name", ["plain", "dropout"])
def test_draws_depend_on_seed_round_and_client_only(samples, name):
    def params(seed=SEED, **where):
        return Federation(MODELS[name](), samples, seed=seed).train(rows_of(20), **where)[1]

    first = params(round_index=2, client=3)
    torch.manual_seed(99)
    assert torch.equal(params(round_index=2, client=3), first)
    for other in ({"round_index": 3, "client": 3}, {"round_index": 2, "client": 4}, {"seed": 12}):
        assert not torch.equal(params(**{"round_index": 2, "client": 3, **other}), first)


def test_dropout_is_active_in_training(samples):
    torch.manual_seed(0)
    with_dropout, without = (Federation(MODELS[name](), samples) for name in ("dropout", "plain"))
    assert torch.equal(with_dropout.params, without.params)
    assert not torch.equal(with_dropout.train(rows_of(20))[1], without.train(rows_of(20))[1])


def test_global_generators_are_untouched(samples):
    federation = Federation(MODELS["dropout"](), samples)
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    federation.train(rows_of(20))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002


def test_batch_norm_statistics_travel(samples):
    federation = Federation(MODELS["batch norm"](), samples)
    assert federation.buffers.tolist() == [0.0] * 8 + [1.0] * 8
    _, params, buffers = federation.train(rows_of(20))
    expected = copy.deepcopy(federation.plain).train()
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1)
    for batch in batches(20, federation.config, generator(SEED, "batches", 1, 0)):
        optimizer.zero_grad()
        Regression(expected).loss((samples[torch.from_numpy(batch)],)).backward()
        optimizer.step()
    close(buffers, federation.layout.flatten_buffers(expected))
    close(params, federation.layout.flatten(expected))
    federation.buffers = buffers
    _, _, after = federation.train(rows_of(20))
    assert not torch.equal(after, buffers), "the next round goes on from them"


# --- updates that are refused --------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_an_update_with_nan_or_inf_says_so_and_does_not_reach_the_next_client(samples, bad, clip):
    clean = Federation(mlp(), samples, clip_norm=clip, lr=1.0, momentum=0.9)
    expected = clean.train(rows_of(20, 40), client=1)[1]
    poisoned = samples.clone()
    poisoned[:20] = bad
    federation = Federation(mlp(), poisoned, clip_norm=clip, lr=1.0, momentum=0.9)
    update, params, _ = federation.train(rows_of(20), client=0)
    assert not update.is_sound(federation.buffers)
    # A gradient of infinite norm may be clipped to zero: then only the loss is not finite.
    assert not (torch.isfinite(params).all() and np.isfinite(update.loss))
    update, params, _ = federation.train(rows_of(20, 40), client=1)
    assert update.is_sound(federation.buffers)
    assert torch.equal(params, expected)


def test_nonfinite_buffers_alone_are_enough():
    """A frozen, normalised input overflows float32 when squared, and no parameter moves."""
    model = mlp(nn.BatchNorm1d(8))
    model[0].requires_grad_(False)
    samples = torch.full((20, WIDTH + 1), 1e25)
    samples[::2] = -1e25
    samples[:, -1] = 0
    federation = Federation(model, samples, lr=1e-30)
    update, params, buffers = federation.train(rows_of(20))
    assert not torch.isfinite(buffers).all()
    assert torch.isfinite(params).all()
    assert np.isfinite(update.loss)
    assert not update.is_sound(federation.buffers)


# --- models of several kinds ---------------------------------------------------------------------


def test_frozen_parameters_stay_and_tied_ones_stay_tied():
    model = gpt2(layers=2)
    model.transformer.wpe.weight.requires_grad_(False)
    frozen = model.transformer.wpe.weight.detach().clone()
    samples = torch.from_numpy(generator(0, "tokens").integers(0, 50, (24, 8)))
    federation = Federation(model, samples, task=LanguageModelling, weight_decay=0.1)
    update, params, _ = federation.train(rows_of(24))
    assert update.is_sound(federation.buffers)
    assert torch.equal(model.transformer.wpe.weight, frozen)
    assert model.lm_head.weight is model.transformer.wte.weight
    moved = federation.layout.views(params - federation.params)
    assert all(view.abs().max() > 0 for name, view in moved.items() if not name.endswith("c_attn.bias"))


def test_training_lowers_the_loss():
    model = gpt2(layers=2)
    start = generator(0, "tokens").integers(0, 50, (40, 1))
    samples = torch.from_numpy((start + np.arange(8)) % 50)
    federation = Federation(model, samples, task=LanguageModelling, local_steps=60, lr=0.3, clip_norm=1.0)
    task = federation.trainer.task
    before = task.evaluate((samples,), 16).losses
    assert before.shape == (40,)
    assert before.dtype == torch.float64
    _, params, buffers = federation.train(rows_of(40))
    federation.trainer.load_(params, buffers)
    after = task.evaluate((samples,), 7).losses
    assert after.mean() < 0.8 * before.mean()
    federation.trainer.load_(federation.params, federation.buffers)
    torch.testing.assert_close(task.evaluate((samples,), 40).losses, before, rtol=1e-5, atol=1e-6)


def test_a_sample_loss_is_the_loss_of_the_sample():
    task = LanguageModelling(gpt2(layers=1))
    samples = torch.from_numpy(generator(0, "tokens").integers(0, 50, (5, 8)))
    own = task.evaluate((samples,), 2).losses
    alone = [task.loss((samples[index : index + 1],)).item() for index in range(5)]
    assert own.tolist() == pytest.approx(alone, rel=1e-5)
    assert task.loss((samples,)).item() == pytest.approx(own.mean().item(), rel=1e-5)
