"""Training of chosen blocks, and probes, compared with torch on a model whose other parameters are frozen."""

import copy
from itertools import chain, combinations

import numpy as np
import pytest
import torch
from support.model_zoo import Scalars, gpt2
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fedtlu_fast import ParameterLayout
from fedtlu_fast.clients.optimizer import AdamW
from fedtlu_fast.clients.training import LocalTrainer, batches
from fedtlu_fast.config import TrainingConfig
from fedtlu_fast.data.population import Samples
from fedtlu_fast.randomness import generator as seeded
from fedtlu_fast.randomness import torch_seeded
from fedtlu_fast.tasks.classification import Classification
from fedtlu_fast.tasks.language_modelling import LanguageModelling

FEATURES, LABELS, SEED = 5, 3, 11
OPTIONS = {
    "sgd": {},
    "momentum": {"momentum": 0.9},
    "weight decay": {"weight_decay": 0.05},
    "both": {"momentum": 0.5, "weight_decay": 0.01},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.3},
    "proximal": {"proximal_mu": 2.0},
    "clipped": {"clip_norm": 0.05},
    "all": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1, "proximal_mu": 0.7, "clip_norm": 0.1},
}
SUBSETS = list(chain.from_iterable(combinations(range(3), size) for size in range(4)))
"""All subsets of the three blocks of an MLP, the empty one and the whole one among them."""


def mlp(*extra):
    torch.manual_seed(3)
    layers = nn.Linear(FEATURES, 8), *extra, nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, LABELS)
    return nn.Sequential(*layers)


def features(count=40):
    draws = seeded(0, "samples")
    x = torch.from_numpy(draws.standard_normal((count, FEATURES), dtype=np.float32))
    return x, torch.from_numpy(draws.integers(0, LABELS, count))


class Client:
    """A trainer, what it starts from, and a plain copy of the model."""

    def __init__(self, model, pool=None, task=Classification, rows=30, **training):
        self.plain, self.task = copy.deepcopy(model), task
        self.layout = ParameterLayout.from_module(model)
        self.config = TrainingConfig(**{"clip_norm": None, "lr": 0.1, "local_steps": 6, **training}).local
        self.samples = Samples(pool or features(), np.arange(rows))
        # Numbers whose bits any extra operation would change.
        self.start = self.layout.flatten(model)
        self.start[::5] = -0.0
        self.buffers = self.layout.flatten_buffers(model)
        self.trainer = LocalTrainer(task(model), self.layout, self.config, SEED)

    def train(self, blocks=None, client=7, round_index=2):
        update = self.trainer.train(self.start, self.buffers, self.samples, round_index, client, blocks)
        return update.params.clone(), update.buffers.clone(), update

    def gradient(self, count, client=7, round_index=2):
        found = self.trainer.gradient(self.start, self.buffers, self.samples, count, round_index, client)
        return found.clone()

    def by_torch(self, blocks, client=7, round_index=2):
        """Returns the same training done with autograd and torch's optimizer on separate tensors."""
        model = copy.deepcopy(self.plain).train()
        self.layout.bind_(model, self.start.clone())
        params, config = dict(model.named_parameters()), self.config
        trained = [
            params[self.layout.names[at]] for block in blocks for at in self.layout.blocks[block].layers
        ]
        for param in params.values():
            param.requires_grad_(any(param is own for own in trained))
        first = [param.detach().clone() for param in trained]
        if isinstance(config.optimizer, AdamW):
            optimizer = torch.optim.AdamW(
                trained, lr=config.optimizer.lr, weight_decay=config.optimizer.weight_decay
            )
        else:
            given = {"momentum": config.optimizer.momentum, "weight_decay": config.optimizer.weight_decay}
            optimizer = torch.optim.SGD(trained, lr=config.optimizer.lr, **given)
        draws = seeded(SEED, "batches", round_index, client)
        with torch_seeded(SEED, "dropout", round_index, client):
            for places in batches(len(self.samples), config, draws):
                optimizer.zero_grad()
                drift = sum((w - w0).square().sum() for w, w0 in zip(trained, first, strict=True))
                loss = self.task(model).loss(self.samples.take(places))
                (loss + config.proximal_mu / 2 * drift).backward()
                if config.clip_norm is not None:
                    nn.utils.clip_grad_norm_(trained, config.clip_norm)
                optimizer.step()
        return self.layout.flatten(model), self.layout.flatten_buffers(model)

    def outside(self, blocks):
        """Returns the slices of the flat vector that hold the other blocks."""
        return self.layout.runs(set(range(len(self.layout.blocks))).difference(blocks))


def same_bits(one, two):
    return torch.equal(one.view(torch.int32), two.view(torch.int32))


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS)
def test_chosen_blocks_end_where_torch_ends_and_the_others_keep_their_bits(options):
    client = Client(mlp(), **OPTIONS[options])
    for blocks in SUBSETS[1:]:
        params, _, update = client.train(blocks)
        close(params, client.by_torch(blocks)[0])
        assert (update.steps, update.is_sound(client.buffers)) == (6, True)
        for run in client.outside(blocks):
            assert same_bits(params[run], client.start[run])
        for run in client.layout.runs(blocks):
            assert (params[run] - client.start[run]).abs().max() > 1e-3


@pytest.mark.parametrize("options", OPTIONS)
def test_all_blocks_named_are_all_blocks_to_the_bit(options):
    client = Client(mlp(), **OPTIONS[options])
    whole = client.train()[0]
    assert not same_bits(whole, client.start)
    for blocks in ((0, 1, 2), (2, 0, 1), [0, 1, 2]):
        assert same_bits(client.train(blocks)[0], whole)


@pytest.mark.parametrize("options", ["sgd", "all"])
def test_a_client_that_trains_nothing_keeps_every_bit_and_reports_its_loss(options):
    client = Client(mlp(), **OPTIONS[options])
    params, _, update = client.train(())
    assert same_bits(params, client.start)
    model = copy.deepcopy(client.plain)
    client.layout.bind_(model, client.start.clone())
    plan = batches(30, client.config, seeded(SEED, "batches", 2, 7))
    losses = [Classification(model).loss(client.samples.take(places)).item() for places in plan]
    assert update.loss == pytest.approx(np.mean(losses), rel=1e-6)
    assert (update.samples, update.steps, update.is_sound(client.buffers)) == (30, 6, True)


@pytest.mark.parametrize("blocks", [(), (0,), (2, 3), (0, 4)], ids=str)
def test_gpt2_with_dropout_and_tied_weights(blocks):
    """Dropout's draws do not depend on the trained blocks; the head trains the embedding as well."""
    torch.manual_seed(1)
    tokens = torch.from_numpy(seeded(0, "tokens").integers(0, 50, (30, 8)))
    client = Client(gpt2(layers=3), (tokens,), LanguageModelling, clip_norm=1.0, momentum=0.9)
    assert client.layout.blocks[0].name == "transformer.wte"
    params, _, _ = client.train(blocks)
    if blocks:
        close(params, client.by_torch(blocks)[0])
    for run in client.outside(blocks):
        assert same_bits(params[run], client.start[run])


def test_running_statistics_move_whatever_is_trained():
    client = Client(mlp(nn.BatchNorm1d(8)))
    assert [block.name for block in client.layout.blocks] == ["0", "1", "3", "5"]
    for blocks in ((), (3,), (1, 2), (0,)):
        params, buffers, _ = client.train(blocks)
        assert not torch.equal(buffers, client.buffers)
        if blocks:
            expected = client.by_torch(blocks)
            close(params, expected[0])
            close(buffers, expected[1])


@pytest.mark.parametrize("options", ["sgd", "all"])
def test_nothing_of_one_client_reaches_the_next(options):
    for make in (mlp, lambda: mlp(nn.BatchNorm1d(8)), lambda: mlp(nn.Dropout(0.5))):
        alone = [Client(make(), **OPTIONS[options]).train(blocks) for blocks in (None, (2,), (0,))]
        shared = Client(make(), **OPTIONS[options])
        for blocks in ((1,), (), (0, 2)):
            shared.train(blocks, client=3)
            shared.gradient(2, client=4)
            for own, expected in zip((None, (2,), (0,)), alone, strict=True):
                found = shared.train(own)
                assert same_bits(found[0], expected[0])
                assert same_bits(found[1], expected[1])
                assert found[2].loss == expected[2].loss


def test_evaluation_and_the_global_vectors_do_not_depend_on_chosen_blocks():
    client = Client(mlp(nn.BatchNorm1d(8)))
    trainer, start, buffers = client.trainer, client.start.clone(), client.buffers.clone()
    trainer.load_(start, buffers)
    before = trainer.task.evaluate(client.samples.all(), 8).losses
    client.train((1,))
    client.gradient(3)
    trainer.load_(start, buffers)
    assert torch.equal(trainer.task.evaluate(client.samples.all(), 8).losses, before)
    assert same_bits(client.start, start)
    assert same_bits(client.buffers, buffers)


def test_parameters_that_the_model_itself_has_frozen_stay_so():
    model = mlp()
    model[0].requires_grad_(False)
    client = Client(model)
    assert [block.name for block in client.layout.blocks] == ["2", "4"]
    for blocks in ((1,), (0, 1), None):
        client.train(blocks)
        assert not any(param.requires_grad for param in client.trainer.task.model[0].parameters())


def flops(act):
    with FlopCounterMode(display=False) as counter:
        act()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("blocks", "products"),
    [
        # Forward: 5 x 8, 8 x 8 and 8 x 3. Backward: the gradients of the trained weights, and of the
        # activations down to the lowest trained layer.
        ((), 0),
        ((2,), 24),
        ((1,), 24 + 64),
        ((1, 2), 24 + 64 + 24),
        ((0,), 24 + 64 + 40),
        ((0, 1, 2), 24 + 64 + 24 + 64 + 40),
    ],
)
def test_the_backward_pass_ends_at_the_lowest_trained_block(blocks, products):
    client = Client(mlp(), local_steps=1, batch_size=10)
    assert flops(lambda: client.train(blocks)) == 2 * 10 * (40 + 64 + 24 + products)


def test_a_block_that_the_loss_does_not_depend_on_only_decays():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.used, self.spare = mlp(), Scalars()

        def forward(self, x):
            return self.used(x)

    client = Client(Spare(), weight_decay=0.5)
    names = [block.name for block in client.layout.blocks]
    spare = [at for at, name in enumerate(names) if name.startswith("spare")]
    params, _, update = client.train(spare)
    assert update.is_sound(client.buffers)
    (run,) = client.layout.runs(spare)
    torch.testing.assert_close(params[run], client.start[run] * (1 - 0.1 * 0.5) ** 6)
    for other in client.outside(spare):
        assert same_bits(params[other], client.start[other])


# --- probes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "steps"), [(1, 1), (3, 3), (4, 4), (9, 4)])
def test_a_probe_is_the_mean_gradient_of_the_first_batches_of_a_pass(count, steps):
    client = Client(mlp(), batch_size=8, proximal_mu=3.0, clip_norm=0.01, weight_decay=1.0)
    found = client.gradient(count)
    order = seeded(SEED, "probe", 2, 7).permutation(30)
    model = copy.deepcopy(client.plain).double()
    for name, view in client.layout.views(client.start).items():
        dict(model.named_parameters())[name].data = view.double()
    x, y = client.samples.all()
    means = []
    for first in range(0, 8 * steps, 8):
        at = torch.from_numpy(order[first : first + 8])
        loss = nn.functional.cross_entropy(model(x[at].double()), y[at])
        parts = torch.autograd.grad(loss, list(model.parameters()))
        means.append(torch.cat([part.reshape(-1) for part in parts]))
    torch.testing.assert_close(found.double(), torch.stack(means).mean(dim=0), rtol=1e-5, atol=1e-7)
    assert found.norm() > 0.1, "neither clipped nor empty"


def test_a_probe_changes_nothing_and_is_drawn_for_seed_round_and_client():
    for make in (mlp, lambda: mlp(nn.BatchNorm1d(8)), lambda: mlp(nn.Dropout(0.5))):
        client = Client(make(), batch_size=8)
        start, buffers = client.start.clone(), client.buffers.clone()
        first = client.gradient(2)
        assert same_bits(client.trainer.params, start)
        assert same_bits(client.start, start)
        assert same_bits(client.buffers, buffers)
        client.train((1,), client=1)
        torch.rand(5)
        assert same_bits(client.gradient(2), first)
        assert not torch.equal(client.gradient(2, client=8), first)
        assert not torch.equal(client.gradient(2, round_index=3), first)
        assert same_bits(Client(make(), batch_size=8).gradient(2), first)


def test_training_after_a_probe_has_the_bits_of_training_without():
    client = Client(mlp(nn.Dropout(0.5)), momentum=0.9)
    expected = Client(mlp(nn.Dropout(0.5)), momentum=0.9).train()[0]
    client.gradient(2)
    assert same_bits(client.train()[0], expected)
