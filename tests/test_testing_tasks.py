"""`check_task`: our own tasks pass, and a task that breaks a promise does not."""

from dataclasses import dataclass, replace

import pytest
import torch
from support.models import build_mlp
from support.own import GatesTagger, LstmTagger, mean_tag_loss, sentences, tag_accuracy, tag_loss, word_counts
from torch import nn
from torch.nn import functional as F

from fedtlu_fast import Datasets, InputError
from fedtlu_fast.data.tagging import NO_LABEL
from fedtlu_fast.models.cnn import Cnn, CnnModel
from fedtlu_fast.models.transformer import Transformer, TransformerModel
from fedtlu_fast.tasks.classification import Classification
from fedtlu_fast.tasks.image_classification import ImageClassification
from fedtlu_fast.tasks.language_modelling import LanguageModelling
from fedtlu_fast.tasks.metrics import Evaluation
from fedtlu_fast.tasks.own_metrics import Metric
from fedtlu_fast.tasks.supervised import SupervisedTask
from fedtlu_fast.tasks.tagging import Tagging
from fedtlu_fast.tasks.text_classification import TextClassification
from fedtlu_fast.testing import ConformanceError, check_task

NAMES, VOCABULARY, WINDOW = ("a", "b", "c"), 20, 7
SIZE = TransformerModel(layers=2, width=8, heads=2)


def vectors(generator, count=6):
    return torch.randn(count, 5, generator=generator), torch.randint(0, 3, (count,), generator=generator)


def tokens_of(generator, count=6):
    tokens = torch.randint(1, VOCABULARY, (count, WINDOW), generator=generator)
    lengths = torch.randint(1, WINDOW - 1, (count, 1), generator=generator)
    tokens[torch.arange(WINDOW) >= lengths] = 0
    return tokens


def classification(generator):
    return Classification(build_mlp(5, [8, 8, 8], 3, seed=1)), vectors(generator)


def images(generator):
    model = Cnn.build(CnnModel(layers=2, width=4), (1, 8, 8), len(NAMES), 1)
    task = ImageClassification(model, NAMES, torch.full((1, 1, 1), 128.0), torch.full((1, 1, 1), 50.0))
    pictures = torch.randint(0, 256, (5, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return task, (pictures, torch.randint(0, 3, (5,), generator=generator))


def texts(generator):
    model = Transformer.build(SIZE, VOCABULARY, WINDOW, 3, 1, causal=False)
    return TextClassification(model, NAMES), (tokens_of(generator), torch.arange(6) % 3)


def tagging(generator):
    tokens = tokens_of(generator)
    labels = torch.where(tokens == 0, NO_LABEL, tokens % 3)
    labels[0] = NO_LABEL
    return Tagging(Transformer.build(SIZE, VOCABULARY, WINDOW, 3, 1, causal=False), NAMES), (tokens, labels)


def language(generator):
    model = Transformer.build(SIZE, VOCABULARY, WINDOW, VOCABULARY, 1, causal=True)
    return LanguageModelling(model), torch.randint(0, VOCABULARY, (5, WINDOW + 1), generator=generator)


@pytest.mark.parametrize("made", [classification, images, texts, tagging, language])
def test_our_tasks_pass(made, generator):
    check_task(*made(generator))


class Normed(nn.Module):
    """With BatchNorm and dropout, and two blocks that are alike."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Dropout(0.5)) for _ in range(2)
        )
        self.head = nn.Linear(5, 3)

    def forward(self, inputs):
        for layer in self.layers:
            inputs = inputs + layer(inputs)
        return self.head(inputs)


def right(outputs, targets):
    return (outputs.argmax(dim=1) == targets).float()


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss(label_smoothing=0.1)])
def test_a_task_of_ones_own_passes(loss, generator):
    task = SupervisedTask(Normed(), loss, {"right": right})
    state = {name: own.clone() for name, own in task.model.state_dict().items()}
    held = vectors(generator)
    check_task(task, held)
    check_task(task, Datasets([held], held))
    assert all(torch.equal(own, state[name]) for name, own in task.model.state_dict().items())
    assert task.model.training


@pytest.mark.parametrize(("model", "loss"), [(LstmTagger, tag_loss), (GatesTagger, mean_tag_loss)])
def test_a_tagger_of_ones_own_passes_on_its_ragged_data(model, loss):
    metrics = {"accuracy": Metric(tag_accuracy, percent=True)}
    check_task(SupervisedTask(model(), loss, metrics, counts=word_counts), sentences())


def test_hugging_face_models_pass():
    transformers = pytest.importorskip("transformers")
    from fedtlu_fast.tasks.hugging_face import HuggingFaceTask

    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    size = {"vocab_size": 30, "n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**size, **none, pad_token_id=0))
    rows = [{"input_ids": ids, "labels": ids} for ids in ([3, 4, 5, 6], [7, 8], [9, 3, 2])]
    check_task(HuggingFaceTask(model), Datasets([rows], rows))


def test_a_model_without_like_blocks_is_told(generator):
    with pytest.warns(UserWarning, match="no like blocks"):
        check_task(SupervisedTask(nn.Linear(5, 3), F.cross_entropy), vectors(generator))


# --- broken promises -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Own(Classification):
    """A task that keeps all promises, for others to break."""


class Sum(Own):
    def loss(self, batch):
        return super().losses(batch).sum()


class Column(Own):
    def losses(self, batch):
        return super().losses(batch)[:, None]


class FloatCounts(Own):
    def counts(self, batch):
        return super().counts(batch).float()


class OfTheBatch(Own):
    """A sample's loss depends on the others."""

    def losses(self, batch):
        found = super().losses(batch)
        return found + (found - found.mean())


class Cuts(Own):
    def trim(self, batch):
        return tuple(part[:-1] for part in batch)


class CutsLabels(Own):
    def trim(self, batch):
        return batch[0], torch.zeros_like(batch[1])


class Last(Own):
    """A test that forgets all batches but the last."""

    def evaluate(self, samples, batch_size):
        found = super().evaluate(samples, batch_size)
        last = (len(found.losses) - 1) // batch_size * batch_size
        return replace(found, losses=torch.full_like(found.losses, float(found.losses[last:].mean())))


class Forgets(Own):
    def evaluate(self, samples, batch_size):
        found = super().evaluate(samples, batch_size)
        return Evaluation(found.losses, found.counts)


class Detached(Own):
    def loss(self, batch):
        return super().loss(batch).detach()


class Overwrites(Own):
    def trim(self, batch):
        batch[0].zero_()
        return batch


class Learns(Own):
    """Changes a parameter in a test."""

    def evaluate(self, samples, batch_size):
        found = super().evaluate(samples, batch_size)
        next(self.model.parameters()).data[0] += 1e-6
        return found


class Draws(Own):
    def loss(self, batch):
        return super().loss(batch) + 1e-6 * torch.rand(())


class Unseeded(Own):
    """Draws of its own in training, which no seed decides."""

    drawn = torch.Generator()

    def loss(self, batch):
        return super().loss(batch) + float(self.model.training) * torch.rand((), generator=Unseeded.drawn)


class FromNothing(Own):
    def losses(self, batch):
        return super().losses(batch) if len(batch[0]) else torch.zeros(1)


class Raises(Own):
    def logits(self, inputs):
        found = super().logits(inputs)
        if not found.isfinite().all():
            raise ValueError("NaN")
        return found


class Hides(Own):
    def logits(self, inputs):
        return super().logits(inputs).nan_to_num()


class Spreads(Own):
    """NaN of one sample reaches the others."""

    def logits(self, inputs):
        return super().logits(inputs) + 0 * inputs.sum()


BROKEN = [
    (Sum, "loss is .*, and the mean of losses by counts is"),
    (Column, "losses has to give 6 numbers"),
    (FloatCounts, "counts has to give 6 numbers of int64"),
    (OfTheBatch, "sample 0 has a loss of .* alone and of .* in the batch"),
    (Cuts, "trim has to return a batch of the same samples"),
    (CutsLabels, "trim changes the losses"),
    (Last, "evaluate with . samples? at a time finds a loss"),
    (Forgets, "evaluate does not measure accuracy"),
    (Detached, "the loss has no gradient"),
    (Overwrites, "the task changed the batch"),
    (Learns, "the task changed parameters or buffers"),
    (Draws, "the second time the loss in eval mode is another"),
    (Unseeded, "the loss in training is another, although the seed is the same"),
    (FromNothing, r"losses of no samples has to be \[0\]"),
    (Raises, "raised ValueError: 'NaN'"),
    (Hides, "the loss is finite although the parameters are NaN"),
    (Spreads, "NaN in one sample changes the losses of others"),
]


@pytest.mark.parametrize(("kind", "message"), BROKEN, ids=[kind.__name__ for kind, _ in BROKEN])
def test_a_broken_promise_is_named(kind, message, generator):
    torch.manual_seed(0)
    with pytest.raises(ConformanceError, match=message):
        check_task(kind(build_mlp(5, [8, 8, 8], 3, seed=1)), vectors(generator))


class Unused(Normed):
    def __init__(self):
        super().__init__()
        self.more = nn.Linear(5, 3)


def test_a_parameter_without_a_gradient_and_a_task_that_cannot_be_pickled_are_named(generator):
    with pytest.raises(ConformanceError, match=r"no gradient reaches more\.weight, more\.bias"):
        check_task(SupervisedTask(Unused(), F.cross_entropy), vectors(generator))
    with pytest.raises(ConformanceError, match="cannot be pickled"):
        check_task(
            SupervisedTask(Normed(), lambda outputs, y: F.cross_entropy(outputs, y)), vectors(generator)
        )
    with pytest.raises(InputError, match="samples: got '1 samples'; expected two or more"):
        check_task(SupervisedTask(Normed(), F.cross_entropy), vectors(generator, 1))
