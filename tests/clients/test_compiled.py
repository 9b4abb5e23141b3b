"""Perceptrons trained in C++, compared with `LocalTrainer` and with float64: equal up to rounding."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.closeness import assert_near
from support.model_zoo import gpt2
from support.models import build_mlp
from support.sampling import examples, fresh
from torch import nn
from torch.nn.functional import cross_entropy

from fedtlu_fast import ParameterLayout
from fedtlu_fast.clients.compiled import CannotCompileError, CompiledTrainer
from fedtlu_fast.clients.training import LocalTrainer, batches
from fedtlu_fast.config import TrainingConfig
from fedtlu_fast.data.population import Samples
from fedtlu_fast.randomness import generator as seeded
from fedtlu_fast.tasks.classification import Classification
from fedtlu_fast.tasks.language_modelling import LanguageModelling

_native = pytest.importorskip("fedtlu_fast._native", reason="the C++ extension is not built")

SEED = 5
OPTIONS = {
    "sgd": {},
    "momentum": {"momentum": 0.9, "lr": 0.02},
    "weight decay": {"weight_decay": 0.1},
    "both": {"momentum": 0.5, "weight_decay": 0.01, "lr": 0.03},
    "adamw": {"optimizer": "adamw", "lr": 0.003},
    "adamw with decay": {"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.3},
    "proximal": {"proximal_mu": 2.0},
    "clipped": {"clip_norm": 0.05},
    "loosely clipped": {"clip_norm": 50.0},
    "all": {"momentum": 0.9, "weight_decay": 0.01, "proximal_mu": 0.5, "clip_norm": 0.1, "lr": 0.02},
}
SHAPES = [(6, (9,), 4), (1, (), 2), (16, (16, 16), 16), (70, (65, 3), 17), (5, (1, 40), 3)]


class Setting:
    """A perceptron, samples, and both trainers on copies of it."""

    def __init__(self, shape=SHAPES[0], draws=None, count=120, **training):
        self.draws = draws if draws is not None else fresh()
        inputs, hidden, classes = shape
        model = build_mlp(inputs, hidden, classes, SEED)
        features = torch.from_numpy(self.draws.standard_normal((count, inputs), dtype=np.float32))
        self.pool = (features, torch.from_numpy(self.draws.integers(0, classes, count)))
        self.config = TrainingConfig(**{"clip_norm": None, "lr": 0.1, "batch_size": 4, **training}).local
        self.layout = ParameterLayout.from_module(model)
        self.start = self.layout.flatten(model)
        self.buffers = torch.empty(0)
        self.one = LocalTrainer(Classification(copy.deepcopy(model)), self.layout, self.config, SEED)
        self.compiled = CompiledTrainer(
            Classification(model), self.layout, self.config, SEED, Samples(self.pool, np.arange(3))
        )

    def samples(self, *sizes):
        return [Samples(self.pool, self.draws.permutation(len(self.pool[0]))[:size]) for size in sizes]

    def reference(self, held, client):
        update = self.one.train(self.start, self.buffers, held, 2, client)
        return update, update.params.clone()

    def sum_of(self, samples, clients=None):
        clients = range(len(samples)) if clients is None else clients
        found = self.compiled.train_sum(self.start, samples, 2, clients)
        return found, found.change.clone()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_a_client_ends_where_the_local_trainer_ends(name, shape):
    setting = Setting(shape, local_epochs=2.0, **OPTIONS[name])
    for client, held in enumerate(setting.samples(11, 1, 4, 23)):
        expected, params = setting.reference(held, client)
        found = setting.compiled.train(setting.start, setting.buffers, held, 2, client)
        assert_near(found.params, params, setting.config, expected.steps)
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)
        assert (found.samples, found.steps) == (expected.samples, expected.steps)
        assert found.is_sound(setting.buffers)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_sum_equals_the_clients_weighted_changes(name):
    setting = Setting(local_steps=3, **OPTIONS[name])
    samples = setting.samples(5, 17, 4, 30, 1)
    expected = torch.zeros(setting.layout.size, dtype=torch.float64)
    for client, held in enumerate(samples):
        own = setting.compiled.train(setting.start, setting.buffers, held, 2, client).params
        expected += len(held) * (own.double() - setting.start.double())
    found, change = setting.sum_of(samples)
    assert torch.equal(change, expected.float()), "in float64 and in order: to the bit"
    assert found.samples == [5, 17, 4, 30, 1]
    assert found.finite == [True] * 5


@examples(60)
@given(
    inputs=st.integers(1, 40),
    hidden=st.lists(st.integers(1, 40), max_size=3),
    classes=st.integers(2, 20),
    batch=st.integers(1, 9),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    seed=st.integers(0, 2**31),
)
def test_any_shape_against_float64(inputs, hidden, classes, batch, sizes, seed):
    """Compares SGD with torch's autograd in float64."""
    setting = Setting((inputs, tuple(hidden), classes), np.random.default_rng(seed), batch_size=batch)
    for client, held in enumerate(setting.samples(*sizes)):
        exact = build_mlp(inputs, hidden, classes, SEED).double()
        for places in batches(len(held), setting.config, seeded(SEED, "batches", 2, client)):
            features, labels = held.take(places)
            loss = cross_entropy(exact(features.double()), labels)
            gradients = torch.autograd.grad(loss, list(exact.parameters()))
            with torch.no_grad():
                for param, gradient in zip(exact.parameters(), gradients, strict=True):
                    param -= setting.config.optimizer.lr * gradient
        expected = torch.cat([param.detach().flatten() for param in exact.parameters()])
        found = setting.compiled.train(setting.start, setting.buffers, held, 2, client)
        torch.testing.assert_close(found.params.double(), expected, rtol=2e-5, atol=2e-6)


def test_every_simd_level_gives_the_same_bits():
    setting = Setting((70, (65, 3), 17), clip_norm=0.5, momentum=0.9, lr=0.02)
    samples = setting.samples(30, 7, 1)
    before = _native.simd_level()
    try:
        found = []
        for level in _native.simd_levels():
            _native.set_simd_level(level)
            found.append(setting.sum_of(samples)[1])
    finally:
        _native.set_simd_level(before)
    for change in found:
        assert torch.equal(change, found[0])
    assert found[0].abs().max() > 0


def test_a_client_does_not_depend_on_who_shares_the_call():
    setting = Setting(momentum=0.9, lr=0.02)
    samples = setting.samples(20, 3, 9)
    alone = setting.compiled.train(setting.start, setting.buffers, samples[2], 2, 2)
    params, loss = alone.params.clone(), alone.loss
    together, change = setting.sum_of(samples)
    rest, others = setting.sum_of(samples[:2])
    assert together.losses == [*rest.losses, loss]
    own = 9 * (params.double() - setting.start.double())
    torch.testing.assert_close(change.double(), others.double() + own, rtol=1e-6, atol=1e-6)


def test_clients_with_pools_of_their_own():
    setting = Setting()
    shared = setting.samples(8, 21, 2)
    apart = [Samples(held.all(), np.arange(len(held))) for held in shared]
    assert torch.equal(setting.sum_of(apart)[1], setting.sum_of(shared)[1])


def test_features_that_lie_by_columns():
    setting = Setting()
    samples = setting.samples(8, 21, 2)
    by_columns = (setting.pool[0].T.contiguous().T, setting.pool[1])
    turned = [Samples(by_columns, held.rows) for held in samples]
    assert torch.equal(setting.sum_of(turned)[1], setting.sum_of(samples)[1])


def test_clients_that_are_not_finite_are_left_out():
    setting = Setting(local_steps=2)
    samples = setting.samples(6, 9, 5)
    poisoned = tuple(part.clone() for part in samples[1].all())
    poisoned[0][:] = torch.nan
    clients = [4, 5, 6]
    apart = [Samples(held.all(), np.arange(len(held))) for held in samples]
    good, expected = setting.sum_of([apart[0], apart[2]], [4, 6])
    found, change = setting.sum_of([apart[0], Samples(poisoned, np.arange(9)), apart[2]], clients)
    assert found.finite == [True, False, True]
    assert [found.losses[0], found.losses[2]] == good.losses
    assert np.isnan(found.losses[1])
    assert torch.equal(change, expected)


def test_a_group_without_finite_clients_changes_nothing():
    setting = Setting(lr=1e30, local_steps=5)
    found, change = setting.sum_of(setting.samples(6, 9))
    assert found.finite == [False, False]
    assert torch.equal(change, torch.zeros_like(change))


def test_a_label_that_is_no_class_is_an_error():
    setting = Setting()
    setting.pool[1][7] = 4
    with pytest.raises(ValueError, match="labels: expected numbers from 0 to 3, got 4"):
        setting.sum_of([Samples(setting.pool, np.arange(10))])


def test_the_global_parameters_stay_as_they_are():
    setting = Setting()
    before = setting.start.clone()
    setting.sum_of(setting.samples(6, 9))
    assert torch.equal(setting.start, before)


# --- models without a kernel ---------------------------------------------------------------------


def compiled(model, task=Classification, pool=None):
    pool = pool or (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    layout = ParameterLayout.from_module(model)
    return CompiledTrainer(task(model), layout, TrainingConfig().local, SEED, Samples(pool, np.arange(2)))


def frozen():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    model[0].weight.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), "layer 1 is Tanh"),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU()), "does not end with Linear"),
        (lambda: nn.Sequential(nn.Linear(3, 4, bias=False)), "layer 0 has no bias"),
        (lambda: nn.Sequential(nn.Linear(3, 4).double()), "not float32"),
        (lambda: nn.Linear(3, 4), "not a multi-layer perceptron"),
        (frozen, "layer 0 has no bias, or is not trained"),
    ],
    ids=["Tanh", "ReLU last", "no bias", "double", "no Sequential", "frozen"],
)
def test_another_model_is_refused_with_the_reason(model, reason):
    with pytest.raises(CannotCompileError, match=reason):
        compiled(model())


def test_another_task_is_refused():
    with pytest.raises(CannotCompileError, match="not a multi-layer perceptron"):
        compiled(gpt2(layers=1, width=8), LanguageModelling, (torch.zeros(2, 5, dtype=torch.int64),))


@pytest.mark.parametrize(
    "pool",
    [
        (torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int32)),
    ],
    ids=["width", "double", "int32"],
)
def test_samples_of_another_kind_are_refused(pool):
    with pytest.raises(CannotCompileError, match="3 float32 numbers and an int64 label"):
        compiled(nn.Sequential(nn.Linear(3, 2)), pool=pool)
