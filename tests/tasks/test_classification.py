"""Classification: its losses, its evaluation and its perceptron."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models import build_mlp
from support.sampling import examples
from torch import nn
from torch.func import functional_call, vmap

from fedtlu_fast.build.data import load_federation
from fedtlu_fast.build.task import build_task
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.tasks.classification import Classification


def batch_of(generator, count, features=6, classes=4):
    labels = torch.randint(0, classes, (count,), generator=generator)
    return torch.randn(count, features, generator=generator), labels


def by_hand(task, batch):
    """Returns negative log-likelihoods in float64."""
    logits = task.model(batch[0]).detach().double().numpy()
    shifted = logits - logits.max(axis=1, keepdims=True)
    shares = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    return -np.log(shares[np.arange(len(shares)), batch[1].numpy()])


@pytest.fixture
def task():
    return Classification(build_mlp(6, (8,), 4, seed=2))


@pytest.mark.parametrize("count", [1, 2, 33])
def test_losses_are_negative_log_likelihoods_and_loss_is_their_mean(task, generator, count):
    batch = batch_of(generator, count)
    expected = by_hand(task, batch)
    losses = task.losses(batch)
    assert losses.shape == (count,)
    assert np.allclose(losses.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert task.loss(batch).item() == pytest.approx(expected.mean(), rel=1e-5)
    assert task.loss(batch).shape == ()


def test_loss_and_losses_have_the_same_gradient(task, generator):
    batch = batch_of(generator, 9)
    params = list(task.model.parameters())
    one = torch.autograd.grad(task.loss(batch), params)
    two = torch.autograd.grad(task.losses(batch).mean(), params)
    for a, b in zip(one, two, strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("count", [1, 7, 40])
def test_an_evaluation_does_not_depend_on_the_batch_size(task, generator, count):
    batch = batch_of(generator, count)
    expected = by_hand(task, batch)
    right = task.model(batch[0]).argmax(dim=1) == batch[1]
    for size in (1, 3, 7, 40, 1000):
        evaluation = task.evaluate(batch, size)
        assert evaluation.counts.tolist() == task.counts(batch).tolist() == [1] * count
        assert evaluation.totals["accuracy"].tolist() == right.tolist()
        assert evaluation.f1() is None
        found = evaluation.losses
        assert (found.dtype, found.device.type, found.shape) == (torch.float64, "cpu", (count,))
        assert not found.requires_grad
        assert np.allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_an_evaluation_switches_the_model_to_evaluation_mode(generator):
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 4)).train()
    task, batch = Classification(model), batch_of(generator, 30)
    before = torch.get_rng_state()
    assert torch.equal(task.evaluate(batch, 7).losses, task.evaluate(batch, 7).losses)
    assert torch.equal(torch.get_rng_state(), before)


@examples(40)
@given(st.integers(1, 9), st.lists(st.integers(1, 9), max_size=4), st.integers(2, 9))
def test_a_perceptron_has_the_widths_it_was_given(inputs, hidden, outputs):
    model = build_mlp(inputs, hidden, outputs, seed=0)
    widths = [inputs, *hidden, outputs]
    linear = [module for module in model if isinstance(module, nn.Linear)]
    assert [(own.in_features, own.out_features) for own in linear] == list(pairwise(widths))
    kinds = [type(module) for module in model]
    assert kinds == ([nn.Linear, nn.ReLU] * len(linear))[:-1], "nothing clips the logits"
    assert model(torch.zeros(3, inputs)).shape == (3, outputs)


def test_without_hidden_layers_it_is_a_linear_model(generator):
    model, x = build_mlp(6, (), 4, seed=0), torch.randn(5, 6, generator=generator)
    (linear,) = model
    assert torch.equal(model(x), linear(x))


def test_initial_weights_depend_on_the_seed_only_and_leave_the_global_generator_alone():
    def weights(seed):
        return torch.cat([param.detach().reshape(-1) for param in build_mlp(6, (8, 5), 4, seed).parameters()])

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(weights(3), first)
    assert not torch.equal(weights(4), first)


def test_the_initialisation_is_pytorchs_own():
    model = build_mlp(400, (300,), 10, seed=5)
    for linear in (model[0], model[2]):
        bound = linear.in_features**-0.5
        for param in (linear.weight, linear.bias):
            assert param.abs().max() <= bound
        assert linear.weight.abs().max() > 0.95 * bound


def test_the_settings_task_fits_the_data():
    config = parse_config(
        {
            "task": "classification",
            "clients": 3,
            "cohort": 1,
            "data": {"source": "synthetic", "classes": 7, "synthetic": {"features": 9}},
            "model": {"hidden": [5, 4]},
        }
    )
    data = load_federation(config)
    task = build_task(config, data, config.seed)
    assert isinstance(task, Classification)
    assert [tuple(p.shape) for p in task.model.parameters()] == [(5, 9), (5,), (4, 5), (4,), (7, 4), (7,)]
    assert torch.isfinite(task.loss(data.population.train(0).all()))


def test_it_can_be_vectorised_over_models(task, generator):
    """`VectorizedTrainer` needs losses of single samples that work under vmap."""
    x, y = batch_of(generator, 10)
    params = {name: torch.stack([p, 2 * p]) for name, p in task.model.named_parameters()}

    def losses(own, features, labels):
        logits = functional_call(task.model, own, (features,))
        return nn.functional.cross_entropy(logits, labels, reduction="none")

    together = vmap(losses, in_dims=(0, None, None))(params, x, y)
    torch.testing.assert_close(together[0], task.losses((x, y)), rtol=1e-5, atol=1e-6)
