"""Clients that train together, each with blocks of its own: each row equals the client trained alone."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.closeness import TOLERANCE, assert_near
from support.model_zoo import Scalars, small_gpt2
from support.sampling import examples, fresh
from torch import nn

from fedtlu_fast import ParameterLayout
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.clients.vectorized import VectorizedTrainer
from fedtlu_fast.config import TrainingConfig
from fedtlu_fast.data.population import Samples
from fedtlu_fast.tasks.classification import Classification
from fedtlu_fast.tasks.language_modelling import LanguageModelling

FEATURES, LABELS, SEED = 5, 3, 11
OPTIONS = {
    "sgd": {},
    "momentum": {"momentum": 0.9, "lr": 0.02},
    "weight decay": {"weight_decay": 0.1},
    "both": {"momentum": 0.5, "weight_decay": 0.01, "lr": 0.03},
    "adamw": {"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.3},
    "proximal": {"proximal_mu": 2.0},
    "clipped": {"clip_norm": 0.05},
    # A gradient that is 0 except for rounding errors makes AdamW take a whole step.
    "all": {"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.1, "proximal_mu": 0.7, "clip_norm": 0.1},
    "adamw, proximal": {"optimizer": "adamw", "lr": 0.003, "proximal_mu": 0.7},
}


def mlp():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, LABELS))


class Both:
    """The vectorised and the plain trainer, each on a copy of one model."""

    def __init__(self, model=None, draws=None, task=None, **training):
        self.draws = draws if draws is not None else fresh()
        text = task is LanguageModelling
        tokens = torch.from_numpy(self.draws.integers(0, 50, (100, 8)))
        x = torch.from_numpy(self.draws.standard_normal((100, FEATURES), dtype=np.float32))
        self.pool = (tokens,) if text else (x, torch.from_numpy(self.draws.integers(0, LABELS, 100)))
        model, task = model or mlp(), task or Classification
        self.layout = ParameterLayout.from_module(model)
        self.blocks = len(self.layout.blocks)
        self.config = TrainingConfig(**{"clip_norm": None, "lr": 0.1, "batch_size": 4, **training}).local
        self.start = self.layout.flatten(model)
        self.start[::5] = -0.0
        self.none = torch.empty(0)
        self.one = LocalTrainer(task(copy.deepcopy(model)), self.layout, self.config, SEED)
        example = Samples(self.pool, np.arange(5))
        self.many = VectorizedTrainer(task(copy.deepcopy(model)), self.layout, self.config, SEED, 6, example)

    def samples(self, *sizes):
        return [Samples(self.pool, self.draws.permutation(100)[:size]) for size in sizes]

    def together(self, samples, blocks):
        """Returns the results in the order of the clients."""
        found = self.many.train(self.start, samples, 2, range(10, 10 + len(samples)), blocks)
        rows = np.argsort(found.clients)
        return found.params[rows].clone(), [found.losses[row] for row in rows]

    def compare(self, samples, blocks):
        params, losses = self.together(samples, blocks)
        for place, (held, own) in enumerate(zip(samples, blocks, strict=True)):
            update = self.one.train(self.start, self.none, held, 2, 10 + place, own)
            assert_near(params[place], update.params, self.config, update.steps)
            assert losses[place] == pytest.approx(update.loss, rel=1e-5)
            for run in self.layout.runs(set(range(self.blocks)).difference(own)):
                assert same_bits(params[place, run], self.start[run])
            for block in own:
                moved = [params[place, run] != self.start[run] for run in self.layout.runs([block])]
                assert torch.cat(moved).any()


def same_bits(one, two):
    return torch.equal(one.view(torch.int32), two.view(torch.int32))


@pytest.mark.parametrize("options", OPTIONS)
def test_every_client_ends_where_it_ends_alone_and_keeps_the_bits_of_the_rest(options):
    both = Both(**OPTIONS[options])
    samples = both.samples(3, 9, 1, 13, 8)
    both.compare(samples, [(2,), (0,), (), (0, 1, 2), (1,)])
    both.compare(samples, [(2,)] * 5)
    both.compare(samples, [()] * 5)


@pytest.mark.parametrize("options", ["sgd", "both", "clipped"])
def test_gpt2_with_tied_weights(options):
    both = Both(small_gpt2(), task=LanguageModelling, **OPTIONS[options])
    assert [block.name for block in both.layout.blocks][:3] == [
        "transformer.wte",
        "transformer.wpe",
        "transformer.h.0",
    ]
    both.compare(both.samples(3, 8, 5), [(3, 4), (0,), (1, 2)])


@examples(40)
@given(
    choices=st.lists(st.tuples(st.integers(1, 20), st.sets(st.integers(0, 2))), min_size=1, max_size=6),
    options=st.sampled_from(sorted(OPTIONS)),
    seed=st.integers(0, 2**30),
)
def test_for_any_sizes_and_blocks(choices, options, seed):
    both = Both(draws=np.random.default_rng(seed), **OPTIONS[options])
    both.compare(both.samples(*(size for size, _ in choices)), [tuple(sorted(own)) for _, own in choices])


@pytest.mark.parametrize("options", OPTIONS)
def test_all_blocks_named_are_all_blocks_to_the_bit(options):
    both = Both(**OPTIONS[options])
    samples = both.samples(3, 9, 13)
    whole, losses = both.together(samples, None)
    found, same = both.together(samples, [(0, 1, 2)] * 3)
    assert same_bits(found, whole)
    assert same == losses


def test_one_choice_leaves_nothing_behind_for_the_next():
    both = Both(momentum=0.9, lr=0.02)
    samples = both.samples(3, 9, 13)
    first = both.together(samples, [(2,), (0,), (1, 2)])[0]
    whole = both.together(samples, None)[0]
    both.many.gradients(both.start, samples, 2, 2, [1, 2, 3])
    assert same_bits(both.together(samples, [(2,), (0,), (1, 2)])[0], first)
    assert same_bits(both.together(samples, None)[0], whole)


def test_nan_gradients_affect_neither_other_clients_nor_untrained_blocks():
    both = Both(clip_norm=1.0)
    samples = both.samples(9, 9)
    blocks = [(2,), (0, 2)]
    expected = both.together(samples, blocks)[0]
    x, labels = both.pool
    wild = Samples((torch.full_like(x, torch.nan), labels), np.arange(9))
    params, losses = both.together([wild, samples[1]], blocks)
    torch.testing.assert_close(params[1], expected[1], **TOLERANCE)
    assert np.isnan(losses[0])
    assert params[0, both.layout.runs([2])[0]].isnan().all()
    for run in both.layout.runs([0, 1]):
        assert same_bits(params[0, run], both.start[run])


def test_blocks_that_the_loss_does_not_depend_on_only_decay():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.used, self.spare = mlp(), Scalars()

        def forward(self, x):
            return self.used(x)

    both = Both(Spare(), weight_decay=0.5, local_steps=3)
    spare = tuple(at for at, block in enumerate(both.layout.blocks) if block.name.startswith("spare"))
    params, _ = both.together(both.samples(3, 9), [spare, spare])
    (run,) = both.layout.runs(spare)
    for row in params:
        torch.testing.assert_close(row[run], both.start[run] * (1 - 0.1 * 0.5) ** 3)
        for other in both.layout.runs(set(range(both.blocks)).difference(spare)):
            assert same_bits(row[other], both.start[other])


# --- probes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("name", ["mlp", "gpt2"])
def test_probes_are_those_of_each_client_alone(name, count):
    both = Both() if name == "mlp" else Both(small_gpt2(), task=LanguageModelling)
    samples, clients = both.samples(3, 9, 1, 13, 8), [5, 4, 9, 2, 1]
    found = both.many.gradients(both.start, samples, count, 2, clients)
    assert found.shape == (5, both.layout.size)
    for row, held, client in zip(found, samples, clients, strict=True):
        alone = both.one.gradient(both.start, both.none, held, count, 2, client)
        torch.testing.assert_close(row, alone, rtol=2e-5, atol=2e-6)
        assert alone.norm() > 0.01


def test_a_probe_changes_neither_model_nor_global_vector():
    both = Both()
    start, model = both.start.clone(), both.layout.flatten(both.many._losses.model)
    before = torch.get_rng_state()
    both.many.gradients(both.start, both.samples(3, 9), 2, 2, [1, 2])
    assert same_bits(both.start, start)
    assert same_bits(both.layout.flatten(both.many._losses.model), model)
    assert torch.equal(torch.get_rng_state(), before)
