"""Tests the main claim of the package: on a real change, every backend ranks layers as float64 does.

Eq. 1 differs from 1 by as little as 1e-12, so `norm / (sqrt(n) * std)` in the dtype of the change loses the
order of layers; `excess` on every backend has to keep it.
"""

import math
from itertools import pairwise

import pytest
import torch
from support.model_zoo import gpt2

from fedtlu_fast import ParameterLayout, layer_stats, score_blocks, score_layers
from fedtlu_fast.aggregation import WeightedMean
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.config import TrainingConfig
from fedtlu_fast.data.population import Samples
from fedtlu_fast.randomness import generator as draws_of
from fedtlu_fast.tasks.language_modelling import LanguageModelling

CLIENTS, ROUNDS, SAMPLES, WINDOW, VOCABULARY = 3, 3, 24, 7, 50
LAYERS, WIDTH = 6, 32


def corpus(client):
    """Draws tokens that walk through the vocabulary by the client's own step, with some noise."""
    draws = draws_of(7, "text", client=client)
    start = draws.integers(VOCABULARY, size=(SAMPLES, 1))
    walk = start + draws.integers(1, 4 + client) * torch.arange(WINDOW + 1).numpy()
    noise = draws.integers(VOCABULARY, size=walk.shape) * (draws.random(walk.shape) < 0.2)
    return torch.from_numpy((walk + noise) % VOCABULARY)


@pytest.fixture(scope="module")
def trained():
    """Returns the layout (tensors as blocks) and the averaged change after a few federated rounds."""
    torch.manual_seed(5)
    task = LanguageModelling(gpt2(LAYERS, WIDTH))
    layout = ParameterLayout.from_module(task.model, "tensor")
    params, buffers = layout.flatten(task.model), layout.flatten_buffers(task.model)
    config = TrainingConfig(lr=0.1, local_steps=4, batch_size=6).local
    trainer = LocalTrainer(task, layout, config, seed=1)
    samples = torch.cat([corpus(client) for client in range(CLIENTS)])
    losses = []
    for index in range(1, ROUNDS + 1):
        mean = WeightedMean(params)
        for client in range(CLIENTS):
            rows = torch.arange(client * SAMPLES, (client + 1) * SAMPLES).numpy()
            update = trainer.train(params, buffers, Samples((samples,), rows), index, client)
            losses.append(update.loss)
            mean.add_(update.params, update.samples)
        change = mean.change()
        params = params + change
    assert losses[-1] < losses[0], "it is a change that learning made"
    return layout, change


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def change(request, trained):
    return trained[1].to(request.param)


def oracle(layout, delta):
    """Computes mean/std of every layer from correctly rounded sums."""
    ratios = []
    for view in layout.views(delta.cpu()).values():
        values = view.double().reshape(-1).tolist()
        mean = math.fsum(values) / len(values)
        std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
        ratios.append(mean / std)
    return torch.tensor(ratios, dtype=torch.float64)


def orders(layout, numbers):
    """Returns the layers of each group of like layers from best to worst."""
    return {
        group.name: sorted(group.blocks, key=lambda layer: -float(numbers[layer])) for group in layout.groups
    }


@pytest.fixture(scope="module")
def truths(trained):
    layout, delta = trained
    return {dtype: oracle(layout, delta.to(dtype)) for dtype in (torch.float32, torch.bfloat16)}


@pytest.fixture(scope="module")
def measured(trained):
    """Caches statistics by backend and dtype, since the interpreter needs seconds for each."""
    layout, delta = trained
    known = {}

    def get(backend, device, dtype):
        if (backend, device, dtype) not in known:
            known[backend, device, dtype] = layer_stats(
                delta.to(device, dtype), layout, backend=backend
            ).cpu()
        return known[backend, device, dtype]

    return get


def naive(layout, delta):
    """Computes scores by the obvious loop: torch's norm and std in the dtype of the change."""
    return torch.stack(
        [view.norm() / (math.sqrt(view.numel()) * view.std()) for view in layout.views(delta).values()]
    )


def test_the_change_is_one_on_which_the_order_is_hard_to_see(trained, truths):
    layout, _ = trained
    assert len(layout.groups) == 12
    assert all(len(group.blocks) == LAYERS for group in layout.groups)
    smallest = truths[torch.float32].square().min()
    assert smallest < 1e-7, "scores nearer to 1 than float32 can tell"


def test_every_backend_has_mean_over_std_right_to_1e_8(
    backend, backend_device, trained, change, truths, measured
):
    layout, _ = trained
    stats = measured(backend, backend_device, change.dtype)
    assert stats.names == layout.names
    assert (stats.mean / stats.std - truths[change.dtype]).abs().max() <= 1e-8


def test_every_backend_ranks_every_group_as_float64_does(
    backend, backend_device, trained, change, truths, measured
):
    layout, _ = trained
    stats = measured(backend, backend_device, change.dtype)
    expected = orders(layout, truths[change.dtype].square())
    for ddof in (0, 1):
        scores = score_layers(stats, ddof)
        assert not scores.degenerate.any()
        assert orders(layout, scores.excess) == expected
        # The score itself keeps the order too wherever float64 can tell two scores apart.
        for members in expected.values():
            assert scores.score[members].diff().le(0).all()


def test_every_backend_ranks_blocks_as_float64_does(
    backend, backend_device, trained, change, truths, measured
):
    tensors, _ = trained
    layout = ParameterLayout.from_shapes({layer.name: layer.shape for layer in tensors.layers})
    stats = measured(backend, backend_device, change.dtype)
    excess = truths[change.dtype].square()
    blocks = [excess[list(block.layers)].add(1).log().div(2).expm1().mean() for block in layout.blocks]
    got = score_blocks(score_layers(stats), layout, stats)
    assert [len(group.blocks) for group in layout.groups] == [LAYERS]
    assert orders(layout, got) == orders(layout, blocks)
    assert got.tolist() == pytest.approx([float(block) for block in blocks], abs=1e-9)


def test_the_bfloat16_loop_of_torch_ranks_wrongly(trained, truths):
    """This shows that the tests above can fail: the obvious loop does not pass them."""
    layout, delta = trained
    truth = orders(layout, truths[torch.bfloat16].square())
    loop = orders(layout, naive(layout, delta.bfloat16()))
    wrong = [name for name in truth if loop[name] != truth[name]]
    print(f"bfloat16 loop: {len(wrong)} of {len(truth)} groups ranked wrongly")
    assert len(wrong) >= len(truth) // 2


def test_the_float32_loop_of_torch_is_wrong_by_more_than_layers_differ(trained, truths):
    layout, delta = trained
    excess = truths[torch.float32].square()
    loop = naive(layout, delta).double().square() - 1
    sizes = torch.tensor([layer.numel for layer in layout.layers], dtype=torch.float64)
    expected = (1 + excess) * (sizes - 1) / sizes - 1
    error = (loop - expected).abs()
    truth = orders(layout, excess)
    wrong = [name for name, order in orders(layout, loop).items() if order != truth[name]]
    print(f"float32 loop: {len(wrong)} of {len(truth)} groups ranked wrongly")
    closest = min(
        float(excess[better] - excess[worse]) for order in truth.values() for better, worse in pairwise(order)
    )
    assert error.max() > closest
