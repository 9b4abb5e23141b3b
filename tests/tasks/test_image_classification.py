"""Image classification: normalisation on the device, losses and tests that agree, many clients together."""

import numpy as np
import pytest
import torch

from fedtlu_fast import ParameterLayout
from fedtlu_fast.build.data import load_federation
from fedtlu_fast.build.task import build_task
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.clients.vectorized import VectorizedTrainer
from fedtlu_fast.config import TrainingConfig
from fedtlu_fast.config.settings import load_config
from fedtlu_fast.data.population import Samples
from fedtlu_fast.models.cnn import Cnn, CnnModel
from fedtlu_fast.tasks.image_classification import ImageClassification

NAMES = ("cat", "dog", "eel")


def batch_of(generator, count, shape=(3, 8, 8)):
    images = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    return images, torch.randint(0, len(NAMES), (count,), generator=generator)


@pytest.fixture
def task():
    model = Cnn.build(CnnModel(layers=2, width=4), (3, 8, 8), len(NAMES), 1)
    mean, spread = torch.tensor([90.0, 128.0, 30.0]), torch.tensor([60.0, 50.0, 80.0])
    return ImageClassification(model, NAMES, mean[:, None, None], spread[:, None, None])


def test_the_model_sees_normalised_images(task, generator):
    images, _ = batch_of(generator, 5)
    by_hand = images.numpy().astype(np.float64).transpose(0, 2, 3, 1)
    by_hand = (by_hand - [90, 128, 30]) / [60, 50, 80]
    expected = task.model(torch.from_numpy(by_hand.transpose(0, 3, 1, 2)).float())
    torch.testing.assert_close(task.logits(images), expected)


@pytest.mark.parametrize("count", [1, 7, 20])
def test_losses_counts_and_evaluation_agree(task, generator, count):
    batch = batch_of(generator, count)
    losses = task.losses(batch)
    assert task.loss(batch).item() == pytest.approx(losses.mean().item(), rel=1e-6)
    chosen = task.logits(batch[0]).argmax(dim=1)
    for size in (1, 3, 100):
        found = task.evaluate(batch, size)
        torch.testing.assert_close(found.losses.float(), losses.detach(), rtol=1e-5, atol=1e-6)
        assert found.counts.tolist() == task.counts(batch).tolist() == [1] * count
        assert found.totals["accuracy"].tolist() == (chosen == batch[1]).tolist()
        assert found.tallies[0].sum() == found.totals["accuracy"].sum()
        for right, name in enumerate(NAMES):
            both = (batch[1] == right) & (chosen == right)
            counted = [int(own.sum()) for own in (both, batch[1] == right, chosen == right)]
            assert found.tallies[:, right].tolist() == counted
            assert (name in found.f1()) == bool((batch[1] == right).any() or (chosen == right).any())


@pytest.mark.parametrize("norm", ["group", "none"])
def test_many_clients_together_learn_what_each_learns_alone(generator, norm):
    model = Cnn.build(CnnModel(layers=2, width=4, norm=norm), (1, 8, 8), len(NAMES), 1)
    task = ImageClassification(model, NAMES, torch.tensor([[[128.0]]]), torch.tensor([[[60.0]]]))
    pool, config = (
        batch_of(generator, 30, (1, 8, 8)),
        TrainingConfig(lr=0.1, batch_size=4, local_epochs=2).local,
    )
    held = [Samples(pool, np.arange(*ends)) for ends in ((0, 11), (11, 14), (14, 30))]
    layout = ParameterLayout.from_module(model)
    params = layout.flatten(model)
    together = VectorizedTrainer(task, layout, config, 5, 3, held[0]).train(params, held, 1, [0, 1, 2])
    alone = LocalTrainer(task, layout, config, 5)
    for place, client in enumerate(together.clients):
        own = alone.train(params, torch.empty(0), held[client], 1, client)
        torch.testing.assert_close(together.params[place], own.params, rtol=2e-4, atol=2e-5)
        assert together.losses[place] == pytest.approx(own.loss, rel=1e-4)


def test_the_settings_task_fits_the_data():
    config = load_config("digits", overrides=["clients=9", "cohort=3", "layers=3", "width=8"])
    data = load_federation(config)
    task = build_task(config, data, config.seed)
    assert task.labels == tuple("0123456789")
    samples = data.population.train(0).all()
    assert samples[0].dtype == torch.uint8
    pool = (data.population.pool[0] - task.mean) / task.spread
    assert pool.mean().item() == pytest.approx(0, abs=1e-5)
    assert pool.std().item() == pytest.approx(1, abs=1e-4)
    assert task.logits(samples[0]).shape == (len(samples[0]), 10)
