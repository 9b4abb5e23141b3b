"""Tasks of a user's own model, loss and metrics."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedtlu_fast.data.datasets import Datasets
from fedtlu_fast.errors import InputError
from fedtlu_fast.tasks.called import kind_of
from fedtlu_fast.tasks.metrics import LOSS, PERPLEXITY
from fedtlu_fast.tasks.own_metrics import Metric
from fedtlu_fast.tasks.supervised import SupervisedTask, fitted


@pytest.fixture
def batch(generator):
    return torch.randn(7, 4, generator=generator), torch.randint(0, 3, (7,), generator=generator)


@pytest.fixture
def model():
    torch.manual_seed(1)
    return nn.Linear(4, 3)


def of_model(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def scalar_of_model(model, batch):
    return of_model(model, batch).mean()


def of_outputs(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")


def smoothed(outputs, targets):
    return F.cross_entropy(outputs, targets)


LOSSES = [
    of_model,
    scalar_of_model,
    of_outputs,
    smoothed,
    F.cross_entropy,
    nn.CrossEntropyLoss(),
    partial(F.cross_entropy, label_smoothing=0.0),
]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_form_of_a_loss_gives_the_same_numbers(loss, model, batch):
    task = SupervisedTask(model, loss, {"hit": lambda outputs, targets: outputs.argmax(1) == targets})
    expected = F.cross_entropy(model(batch[0]), batch[1], reduction="none")
    torch.testing.assert_close(task.loss(batch), expected.mean())
    torch.testing.assert_close(task.losses(batch), expected)
    assert task.loss(batch).requires_grad
    assert task.counts(batch).tolist() == [1] * 7
    assert task.trim(batch) is batch
    found = task.evaluate(batch, 3)
    assert found.loss.item() == pytest.approx(expected.mean().item(), rel=1e-6)
    hits = (model(batch[0]).argmax(1) == batch[1]).double()
    assert found.means["hit"].item() == pytest.approx(hits.mean().item())
    assert found.counts.tolist() == [1] * 7
    if task.by_sample or loss in (of_model, of_outputs):
        torch.testing.assert_close(found.losses, expected.detach().double(), rtol=1e-6, atol=1e-7)


def test_ignored_labels_are_not_predictions(generator):
    torch.manual_seed(2)
    model = nn.Sequential(nn.Embedding(9, 5), nn.Linear(5, 3))
    words = torch.randint(0, 9, (4, 6), generator=generator)
    tags = torch.randint(0, 3, (4, 6), generator=generator)
    tags[0, 2:], tags[1, 5:] = -100, -100

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, words):
            return self.inner(words).transpose(1, 2)

    task = SupervisedTask(Turned(), F.cross_entropy)
    assert task.counts((words, tags)).tolist() == [2, 5, 6, 6]
    weighted = (task.losses((words, tags)) * task.counts((words, tags))).sum() / 19
    torch.testing.assert_close(weighted, task.loss((words, tags)))
    found = task.evaluate((words, tags), 3)
    assert found.loss.item() == pytest.approx(task.loss((words, tags)).item(), rel=1e-6)


def test_regression_with_a_metric_that_should_be_low(generator):
    model, x = nn.Linear(4, 2), torch.randn(5, 4, generator=generator)
    y = torch.randn(5, 2, generator=generator)
    task = SupervisedTask(
        model,
        F.mse_loss,
        {"error": Metric(F.l1_loss, "lower", "mean absolute error"), "zero": lambda outputs, targets: 0.0},
    )
    torch.testing.assert_close(task.losses((x, y)), (model(x) - y).square().mean(dim=1))
    found = task.evaluate((x, y), 10)
    assert found.means["error"].item() == pytest.approx((model(x) - y).abs().mean().item(), rel=1e-6)
    assert [(own.name, own.better, own.title) for own in task.figures] == [
        ("error", "lower", "mean absolute error"),
        ("zero", "higher", "zero"),
    ]


def test_the_headline_comes_first():
    metrics = {"a": smoothed, "b": smoothed}

    def names(headline, metrics=metrics):
        return [own.name for own in SupervisedTask(nn.Linear(1, 1), smoothed, metrics, headline).figures]

    assert names(None) == ["a", "b"]
    assert names("b") == ["b", "a"]
    assert names("loss") == [LOSS.name, "a", "b"]
    assert names("perplexity", {}) == [PERPLEXITY.name]
    assert names(None, {}) == []
    with pytest.raises(InputError, match=r"headline.*a, b, loss, perplexity"):
        names("c")


def test_batches_have_the_form_of_the_data():
    seen = []

    def loss(model, batch):
        seen.append(batch)
        return sum(part.float().sum() for part in batch.values()) * model.weight.sum()

    rows = [{"x": [1.0, 2.0], "more": 3}, {"x": [4.0], "more": 6}]
    task, population = fitted(SupervisedTask(nn.Linear(1, 1), loss), Datasets([rows], rows))
    task.loss(population.train(0).take(np.arange(2)))
    assert {key: own.tolist() for key, own in seen[0].items()} == {"x": [[1, 2], [4, 0]], "more": [3, 6]}
    lone = SupervisedTask(nn.Linear(2, 1), lambda model, batch: model(batch).sum())
    lone, population = fitted(lone, Datasets([torch.ones(3, 2)], torch.ones(1, 2)))
    assert lone.loss(population.train(0).all()).ndim == 0


def test_dictionaries_go_to_the_model_by_name(batch):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, *, x, scale):
            return self.inner(x) * scale[:, None]

    columns = {"x": batch[0], "scale": torch.ones(7), "label": batch[1]}
    task, population = fitted(SupervisedTask(Named(), F.cross_entropy), Datasets([columns], columns))
    expected = F.cross_entropy(task.model.inner(batch[0]), batch[1])
    torch.testing.assert_close(task.loss(population.train(0).all()), expected)


def test_the_tasks_collate_function_makes_the_batches(batch):
    rows = list(zip(*batch, strict=True))

    def zeros(samples):
        return torch.zeros(len(samples), 4), torch.tensor([int(y) for _, y in samples])

    task = SupervisedTask(nn.Linear(4, 3), F.cross_entropy, collate=zeros)
    _, population = fitted(task, Datasets([rows], rows))
    assert population.train(0).all()[0].eq(0).all()


def test_how_a_function_is_called_follows_from_its_parameters():
    def annotated(this: nn.Module, that):
        return None

    for own in (of_model, lambda net, b: None, lambda m, batch: None, annotated):
        assert kind_of(own, "loss") == "model"
    for own in (F.mse_loss, nn.BCELoss(), of_outputs, lambda logits, mine: None, lambda mine, labels: None):
        assert kind_of(own, "loss") == "outputs"


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (lambda a, b: None, r"of \(a, b\).*\(model, batch\) or \(outputs, targets\).*Rename"),
        (lambda y_true, y_pred: None, "in this order"),
        (lambda outputs: None, "two positional parameters"),
        (3, r"a function of \(model, batch\) or of \(outputs, targets\)"),
        (nn.CrossEntropyLoss(reduction="sum"), "reduction='mean'"),
        (partial(F.mse_loss, reduction="sum"), "reduction='mean'"),
    ],
)
def test_a_loss_that_cannot_be_called_is_refused(loss, told):
    with pytest.raises(InputError, match=told):
        SupervisedTask(nn.Linear(4, 3), loss)


def test_results_of_losses_metrics_and_counts_are_checked(model, batch):
    def task(loss=F.cross_entropy, **more):
        return SupervisedTask(model, loss, **more)

    for loss in (lambda model, batch: torch.ones(7, 2), lambda model, batch: torch.ones(3)):
        with pytest.raises(InputError, match="each of the 7 samples"):
            task(loss).loss(batch)
    with pytest.raises(InputError, match="a tensor"):
        task(lambda model, batch: 3.0).loss(batch)
    with pytest.raises(InputError, match=r"metrics\['m'\].*each of the 7"):
        task(metrics={"m": lambda outputs, targets: outputs}).evaluate(batch, 7)
    with pytest.raises(InputError, match="counts"):
        task(counts=lambda batch: torch.ones(3)).counts(batch)
    with pytest.raises(InputError, match="inputs and targets"):
        task().loss(batch[:1])
    for name in ("loss", "perplexity", "two words"):
        with pytest.raises(InputError, match="metrics"):
            task(metrics={name: of_outputs})
    with pytest.raises(InputError, match="not its class"):
        SupervisedTask(nn.Linear, F.cross_entropy)
    with pytest.raises(InputError, match="higher, lower"):
        Metric(of_outputs, "more")


def test_targets_must_have_one_name():
    columns = {"x": torch.ones(2, 4), "labels": torch.zeros(2).long(), "y": torch.zeros(2).long()}
    task, population = fitted(SupervisedTask(nn.Linear(4, 3), F.cross_entropy), Datasets([columns], columns))
    with pytest.raises(InputError, match="one of the keys"):
        task.loss(population.train(0).all())


def test_tests_draw_the_same_numbers_each_time_and_leave_the_generators_alone(model, batch):
    rows = list(zip(*batch, strict=True))

    def noisy(samples):
        return torch.stack([x for x, _ in samples]) + torch.rand(()), torch.stack([y for _, y in samples])

    task, population = fitted(SupervisedTask(model, F.cross_entropy, collate=noisy), Datasets([rows], rows))
    state = torch.get_rng_state()
    losses = {task.evaluate(population.test, 3).loss.item() for _ in range(3)}
    assert len(losses) == 1
    assert torch.equal(torch.get_rng_state(), state)
