"""A federation of a user's own model, loss, metric and ragged Datasets, by every executor."""

import pickle
from dataclasses import replace
from operator import attrgetter

import pytest
import torch
import yaml
from support.federations import rows
from support.own import (
    GatesTagger,
    LstmTagger,
    Sentences,
    federated,
    mean_tag_loss,
    sentences,
    tag_accuracy,
    tag_loss,
    word_counts,
)
from torch import nn

from fedtlu_fast import Datasets, Federation, Local
from fedtlu_fast.data.population import example_samples
from fedtlu_fast.errors import ClientError, InputError
from fedtlu_fast.simulation.evaluation import global_test, local_test
from fedtlu_fast.simulation.records import metrics_row, run_summary, start_figures
from fedtlu_fast.tasks.own_metrics import Metric
from fedtlu_fast.tasks.supervised import SupervisedTask, fitted
from fedtlu_fast.tasks.trial import try_loss, warn_of_batches


def tagger(kind=LstmTagger, loss=tag_loss, counts=word_counts):
    torch.manual_seed(0)
    return SupervisedTask(kind(), loss, {"accuracy": Metric(tag_accuracy, percent=True)}, counts=counts)


def ends_with(task, **execution):
    with federated(task, sentences(), **execution) as federation:
        losses = [record.train_loss for record in federation.rounds(2)]
        return federation.state.params, losses


def test_processes_give_the_bits_of_serial():
    params, losses = ends_with(tagger(), executor="serial")
    others, same = ends_with(tagger(), executor="processes", workers=2)
    assert torch.equal(params, others)
    assert losses == same


def test_it_learns_and_its_own_metric_reaches_rows_and_summary():
    with federated(tagger(), sentences(), executor="serial") as federation:
        start = start_figures(federation.server, federation.state)
        (record, *_) = federation.rounds(2)
        row = metrics_row(federation.server, federation.state, record)
        summary = run_summary(federation.server, federation.state, [row | {"seconds": 0.0}], start)
        expected = global_test(federation.server, federation.state).means["accuracy"].item()
        own = local_test(federation.server, federation.state)
    assert row["test_accuracy"] == summary["test_accuracy"] == expected
    assert row["local_accuracy"] == own.means["accuracy"]
    assert row["local_loss"] == own.loss > 0
    assert summary["test_loss"] < start["start_test_loss"]
    assert row["test_perplexity"] is None, "exp of a loss that need not be in nats means nothing"
    assert summary["headline"] == "accuracy"
    assert summary["figures"]["accuracy"] == {"better": "higher", "title": "accuracy", "percent": True}


def test_several_clients_at_once_agree_with_one_after_another_where_torch_can():
    params, losses = ends_with(tagger(GatesTagger), executor="serial")
    others, like = ends_with(tagger(GatesTagger), executor="vectorized", clients_per_batch=4)
    torch.testing.assert_close(others, params, rtol=1e-4, atol=1e-5)
    assert like == pytest.approx(losses, rel=1e-4)


def test_a_scalar_loss_agrees_too_where_counts_say_what_it_is_a_mean_of():
    params, losses = ends_with(tagger(GatesTagger), executor="serial")
    for execution in ({"executor": "serial"}, {"executor": "vectorized", "clients_per_batch": 4}):
        others, like = ends_with(tagger(GatesTagger, mean_tag_loss), **execution)
        torch.testing.assert_close(others, params, rtol=1e-4, atol=1e-5)
        assert like == pytest.approx(losses, rel=1e-4)


def test_what_cannot_be_vectorised_is_refused_with_the_reason():
    with pytest.raises(InputError, match=r"expected serial or processes for this model: .*lstm"):
        ends_with(tagger(), executor="vectorized", clients_per_batch=4)
    with pytest.raises(InputError, match=r"no mean over predictions.*counts"):
        ends_with(tagger(GatesTagger, mean_tag_loss, counts=None), executor="vectorized", clients_per_batch=4)


def test_only_the_cohorts_samples_are_read():
    data = sentences()
    with federated(tagger(), data, executor="serial") as federation:
        assert [held.read for held in data.train] == [2] * 6, "the first and the last, for the fingerprint"
        (record,) = federation.rounds(1)
        drawn = set(record.cohort)
        assert len(drawn) == 4
        assert {client for client, held in enumerate(data.train) if held.read > 2} == drawn
        assert {held.read for held in data.train} == {2, 2 + 9}, "three batches of a pass over nine"


def share_of_first_tag(outputs, targets):
    return (outputs.argmax(dim=-1) == 0).float().mean()


def test_a_metric_of_ones_own_reaches_logs_and_report(tmp_path):
    figure = Metric(share_of_first_tag, better="lower", title="share of the first tag")
    task = SupervisedTask(LstmTagger(), tag_loss, {"first_share": figure, "accuracy": tag_accuracy})
    local = Local(steps=2, batch_size=4)
    own = Federation(task, sentences(), cohort=3, executor="serial", local=local)
    result = own.run(2, tmp_path / "out")
    row = rows(tmp_path / "out" / "metrics.jsonl")[-1]
    assert row["test_first_share"] == result.summary["test_first_share"]
    assert row["local_first_share"] is not None
    assert result.summary["headline"] == "first_share"
    assert own.run(1).summary["start_sha256"] == result.summary["start_sha256"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "share of the first tag (lower is better)" in page
    assert "test_first_share" in page
    assert "&#34;better&#34;" not in page, "how to read figures is for programs"
    assert f"test first_share: {row['test_first_share']:.4g}\n" in repr(result)
    words = torch.tensor([[3, 4, 5]])
    assert result.model(words).shape == (1, 3, 3)


def test_a_share_is_shown_in_per_cent():
    task = SupervisedTask(LstmTagger(), tag_loss, {"accuracy": Metric(tag_accuracy, percent=True)})
    result = Federation(task, sentences(), cohort=3, executor="serial", keep=1).run(1)
    assert f"test accuracy: {100 * result.summary['test_accuracy']:.4g}%" in repr(result)


def test_the_settings_of_a_federation_have_no_line_about_other_data():
    config = Federation(SupervisedTask(LstmTagger(), tag_loss), sentences(), cohort=3).config(3)
    assert yaml.safe_load(config.to_yaml())["data"] == {"source": "own"}


def word_accuracy(outputs, targets):
    """Scalar, over all words: no mean over sentences."""
    return (outputs.argmax(dim=-1) == targets)[targets != -100].float().mean()


@pytest.mark.parametrize("counts", [None, word_counts])
def test_a_scalar_that_depends_on_the_size_of_batches_is_warned_of(caplog, counts):
    task = SupervisedTask(LstmTagger(), tag_loss, {"accuracy": word_accuracy}, counts=counts)
    test, population = fitted(task, sentences())
    warn_of_batches(test, population.test)
    found = [float(test.evaluate(population.test, size).means["accuracy"]) for size in (1, 7, 20)]
    warned = "metrics['accuracy'] depends on evaluation.batch_size: it is " in caplog.text
    assert warned == (counts is None) == (len({round(own, 5) for own in found}) > 1)


def test_a_run_warns_of_a_scalar_loss_over_words_before_round_1(caplog):
    model = LstmTagger()
    with torch.no_grad():
        model.head.weight *= 10  # an untrained model's losses are nearly the same for all words

    def warned(**more):
        caplog.clear()
        task = SupervisedTask(model, mean_tag_loss, **more)
        Federation(task, sentences(), cohort=2, executor="serial").run(1)
        return "loss (mean_tag_loss) depends on evaluation.batch_size" in caplog.text

    assert warned()
    assert not warned(counts=word_counts)


def test_clients_probe_their_gradients_on_ragged_samples():
    chosen = {"client_selection": {"selector": "gradnorm"}, "selection": {"selector": "full"}}

    def params(kind, executor):
        own = Federation(tagger(kind), sentences(), cohort=4, executor=executor, settings=chosen)
        return own.run(2).params

    assert torch.equal(params(LstmTagger, "serial"), params(LstmTagger, "processes"))
    apart, together = params(GatesTagger, "serial"), params(GatesTagger, "vectorized")
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


class Broken(Sentences):
    def __getitem__(self, index):
        raise OSError("the file is gone")


def with_a_broken_client():
    data = sentences()
    return replace(data, train=[Broken(0), *data.train[1:]], held_out=[*data.held_out[:5], Broken(55, 4)])


def test_clients_whose_data_cannot_be_read_stop_the_run_or_are_left_out():
    def run(policy):
        settings = {"execution": {"client_errors": policy}}
        own = Federation(tagger(), with_a_broken_client(), cohort=6, executor="serial", settings=settings)
        return own.run(1)

    with pytest.raises(ClientError, match="client 0 failed in round 1: OSError: 'the file is gone'"):
        run("stop")
    row = run("drop").metrics[-1]
    assert row["failed"] == {"0": "OSError: 'the file is gone'"}
    assert row["failed_tests"] == {"5": "OSError: 'the file is gone'"}
    assert row["local_loss"] > 0


class Branching(nn.Module):
    """Looks at its input, which torch.func does not allow."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x):
        return self.inner(x) if x.detach().numpy().sum() > -1e9 else x


def test_auto_trains_one_after_another_what_cannot_be_vectorised_for_any_reason():
    clients = [(torch.randn(6, 2), torch.randint(0, 2, (6,))) for _ in range(8)]
    task = SupervisedTask(Branching(), nn.functional.cross_entropy)
    own = Federation(task, Datasets(clients, clients[0]), cohort=8, selection="full")
    assert own.run(1).summary["test_loss"] > 0


def test_tasks_travel_between_processes():
    task = tagger()
    again = pickle.loads(pickle.dumps(task))  # noqa: S301
    batch = (torch.tensor([[1, 2]]), torch.tensor([[0, 1]]))
    assert torch.equal(again.loss(batch), task.loss(batch))
    assert again.evaluate(batch, 1).means == task.evaluate(batch, 1).means


def sum_loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, reduction="sum")


def raising(outputs, targets):
    raise ValueError("no such label")


def vectors():
    draws = torch.Generator().manual_seed(3)
    clients = [
        (torch.randn(6, 2, generator=draws), torch.randint(0, 2, (6,), generator=draws)) for _ in range(4)
    ]
    return Datasets(clients, clients[0])


@pytest.mark.parametrize("executor", ["serial", "processes", "vectorized", "auto"])
def test_a_loss_that_is_a_sum_or_raises_is_named_before_the_first_round(executor):
    def run(loss, metrics=None, model=None):
        task = SupervisedTask(model or nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), loss, metrics)
        own = Federation(task, vectors(), cohort=2, selection="full", executor=executor)
        return own.run(1)

    with pytest.raises(InputError, match=r"loss: got 'sum_loss'; expected .*it is a sum: .*reduction='mean'"):
        run(sum_loss)
    with pytest.raises(InputError, match=r"loss: got 'raising'; .*\(shape \(6, 2\), .*ValueError: 'no such"):
        run(raising)
    with pytest.raises(InputError, match=r"metrics\['m'\]: got 'raising'"):
        run(nn.functional.cross_entropy, {"m": raising})
    with pytest.raises(InputError, match=r"model: got 'Linear'; .*shapes cannot be multiplied"):
        run(nn.functional.cross_entropy, model=nn.Linear(3, 2))


class Normed(nn.Module):
    """Has BatchNorm and dropout, so that its training is no mean of single samples."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))

    def forward(self, x):
        return self.inner(x)


def spread_loss(outputs, targets):
    """Of pairs; of one sample it is NaN."""
    return nn.functional.cross_entropy(outputs, targets) + outputs.std(dim=0).mean()


@pytest.mark.parametrize(
    "loss", [nn.functional.cross_entropy, spread_loss, lambda outputs, y: 0 * outputs.sum()]
)
def test_losses_that_are_no_sums_are_tried_without_a_trace(loss):
    torch.manual_seed(0)
    task = SupervisedTask(Normed(), loss)
    task.model.inner[2].eval()
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    samples = example_samples(vectors().population())
    state = torch.get_rng_state()
    try_loss(task, samples, 4)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in task.model.inner] == [True, True, False, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.model.state_dict().items())


class Masked(nn.Module):
    """A model with every kind of value: trained and frozen, buffers that are averaged or not, attributes."""

    def __init__(self):
        super().__init__()
        self.trained = nn.Linear(4, 3)
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)
        self.register_buffer("mask", torch.ones(4, dtype=torch.int64))
        self.register_buffer("scale", torch.ones(4), persistent=False)
        self.table = torch.ones(4)

    def forward(self, inputs):
        return self.trained(inputs * self.frozen * self.mask * self.scale * self.table)


@pytest.mark.parametrize("name", ["trained.weight", "frozen", "mask", "scale", "table"])
def test_a_resumed_run_sees_changes_of_the_model_through_numpy(name, tmp_path):
    samples = torch.linspace(-1, 1, 16).reshape(4, 4), torch.arange(4) % 3
    model = Masked()
    federation = Federation(
        SupervisedTask(model, nn.functional.cross_entropy),
        Datasets(train=[samples] * 2, test=samples),
        cohort=1,
        selection="full",
        executor="serial",
    )
    federation.run(1, tmp_path / "run")
    federation.resume(tmp_path / "run", 2)
    attrgetter(name)(model).detach().numpy()[:] = 2
    with pytest.raises(InputError, match=r"expected a checkpoint made with this run's .* have changed since"):
        federation.resume(tmp_path / "run", 3)
