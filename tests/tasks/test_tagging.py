"""Tagging: losses over labelled words, hits, and models of every kind."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.treebanks import LEXICON, write_treebank
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForTokenClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from fedtlu_fast import InputError
from fedtlu_fast.build.data import load_federation
from fedtlu_fast.build.task import build_task
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.data.tagging import NO_LABEL

WORDS = ["[PAD]", "[UNK]", *(word for words in LEXICON.values() for word in words)]


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return write_treebank(tmp_path_factory.mktemp("banks") / "bank")


def settings(bank, seed=0, **model):
    size = {} if "pretrained" in model else {"layers": 2, "width": 16, "heads": 2}
    return parse_config(
        {
            "task": "tagging",
            "seed": seed,
            "clients": 6,
            "cohort": 2,
            "data": {"source": f"udpos:{bank}", "window": 8},
            "model": {**size, **model},
        }
    )


def save(folder, model, **special):
    """Saves a small model and a tokenizer of whole words."""
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", **special
    )
    fast.save_pretrained(folder)
    model.save_pretrained(folder)
    return str(folder)


def bert_size(positions=12, **over):
    return BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=positions,
        **over,
    )


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    torch.manual_seed(7)
    return save(tmp_path_factory.mktemp("bert"), BertModel(bert_size()))


@pytest.fixture(params=["transformer", "gpt2", "bert"])
def task(request, bank):
    model = {"architecture": request.param}
    if request.param == "bert":
        model = {"pretrained": request.getfixturevalue("bert")}
    config = settings(bank, **model)
    data = load_federation(config)
    made = build_task(config, data, config.seed)
    with torch.no_grad():  # the logits of a fresh head hardly depend on the word
        list(made.model.parameters())[-2].mul_(30)
    return made, data.population.test


def by_hand(task, batch):
    """Returns negative log-likelihoods of labelled words in float64 and the predicted labels, by sentence."""
    tokens, labels = batch
    found = []
    task.model.eval()
    for row in range(len(tokens)):
        logits = task.logits(tokens[row : row + 1])[0].detach().double().numpy()
        places = [place for place, label in enumerate(labels[row].tolist()) if label != NO_LABEL]
        truth = labels[row, places].numpy()
        shares = np.exp(logits[places]) / np.exp(logits[places]).sum(axis=1, keepdims=True)
        found.append((-np.log(shares[np.arange(len(places)), truth]), truth, logits[places].argmax(axis=1)))
    return found


def test_losses_are_means_over_labelled_words(task):
    task, batch = task
    expected = by_hand(task, batch)
    counts = task.counts(batch)
    assert counts.tolist() == [len(nats) for nats, _, _ in expected]
    assert len(set(counts.tolist())) > 2, "else nothing is tested"
    means = [nats.mean() for nats, _, _ in expected]
    np.testing.assert_allclose(task.losses(batch).detach().numpy(), means, rtol=1e-4)
    whole = np.concatenate([nats for nats, _, _ in expected]).mean()
    assert task.loss(batch).item() == pytest.approx(whole, rel=1e-5)
    assert whole != pytest.approx(np.mean(means), rel=1e-4)
    weighted = (task.losses(batch) * counts).sum() / counts.sum()
    ours = torch.autograd.grad(task.loss(batch), list(task.model.parameters()))
    theirs = torch.autograd.grad(weighted, list(task.model.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_an_evaluation_counts_hits_and_labels(task):
    task, batch = task
    expected = by_hand(task, batch)
    for size in (1, 5, 100):
        found = task.evaluate(batch, size)
        np.testing.assert_allclose(found.losses.numpy(), [nats.mean() for nats, _, _ in expected], rtol=1e-4)
        assert found.totals["accuracy"].tolist() == [(truth == chosen).sum() for _, truth, chosen in expected]
        confusion = torch.zeros(17, 17, dtype=torch.int64)
        for _, truth, chosen in expected:
            for pair in zip(truth, chosen, strict=True):
                confusion[pair] += 1
        counted = [confusion.diagonal(), confusion.sum(dim=1), confusion.sum(dim=0)]
        assert torch.equal(found.tallies, torch.stack(counted))
        assert found.means["accuracy"].item() == confusion.diagonal().sum().item() / confusion.sum().item()
        assert found.losses.dtype == torch.float64
        assert not found.losses.requires_grad


def test_nothing_to_predict_is_a_loss_of_zero(task):
    task, (tokens, labels) = task
    for given in (tokens, torch.full_like(tokens, task.padding)):
        batch = given, torch.full_like(labels, NO_LABEL)
        loss = task.loss(batch)
        assert loss.item() == 0
        grads = torch.autograd.grad(loss, list(task.model.parameters()))
        assert all(bool((grad == 0).all()) for grad in grads)
        assert task.losses(batch).tolist() == [0.0] * len(tokens)
        found = task.evaluate(batch, 7)
        assert (found.loss.item(), found.means["accuracy"].item(), found.f1()) == (0, 0, {})


def test_padding_does_not_matter(task):
    task, (tokens, labels) = task
    short = int(task.counts((tokens, labels)).min())
    rows = task.counts((tokens, labels)) == short
    cut = tokens[rows][:, :short], labels[rows][:, :short]
    expected = task.evaluate(cut, 100).losses
    torch.testing.assert_close(
        task.evaluate((tokens[rows], labels[rows]), 100).losses, expected, rtol=1e-5, atol=1e-6
    )


def test_batches_are_cut_to_their_longest_sentence(task):
    task, batch = task
    lengths = (batch[0] != task.padding).sum(dim=1)
    kinds = int(lengths.min()), int(lengths.max())
    assert kinds[0] < kinds[1] == batch[0].shape[1], "else nothing is cut"
    assert task.trim(batch) is batch
    for longest in range(kinds[0], kinds[1]):
        rows = lengths <= longest
        own = tuple(part[rows] for part in batch)
        cut = task.trim(own)
        assert [part.shape for part in cut] == [(int(rows.sum()), int(lengths[rows].max()))] * 2
        assert torch.equal(task.counts(cut), task.counts(own))
        torch.testing.assert_close(task.losses(cut), task.losses(own), rtol=1e-5, atol=1e-6)
        for a, b in zip(
            *(torch.autograd.grad(task.loss(each), list(task.model.parameters())) for each in (cut, own)),
            strict=True,
        ):
            assert a.shape == b.shape
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
        two = tuple(torch.stack([part, part.flip(0)]) for part in own)
        assert [torch.equal(a[0], b) for a, b in zip(task.trim(two), cut, strict=True)] == [True, True]


def test_an_evaluation_batches_sentences_of_similar_length(task):
    task, batch = task
    places = []
    spy = task.model.register_forward_pre_hook(
        lambda _, args, named: places.append([*args, *named.values()][0].numel()), with_kwargs=True
    )
    task.evaluate(batch, 4)
    spy.remove()
    lengths = (batch[0] != task.padding).sum(dim=1).sort().values
    assert sum(places) == sum(part.numel() * int(part.max()) for part in lengths.split(4))
    assert sum(places) < batch[0].numel()


def test_words_and_labels_are_never_cut(task):
    task, (tokens, labels) = task
    tokens, labels = torch.full_like(tokens[:2], task.padding), torch.full_like(labels[:2], NO_LABEL)
    assert task.trim((tokens, labels))[0].shape == (2, 1)
    labels[1, 3] = 0
    assert task.trim((tokens, labels))[0].shape == (2, 4)
    tokens[0, 5] = task.padding + 1
    assert task.trim((tokens, labels))[1].shape == (2, 6)


def test_a_tagger_sees_the_whole_sentence_unless_it_is_a_gpt2(task):
    task, (tokens, labels) = task
    row = int(task.counts((tokens, labels)).argmax())
    changed = tokens[row : row + 1].clone()
    last = int(task.counts((tokens, labels))[row]) - 1
    changed[0, last] = changed[0, last] % (len(WORDS) - 2) + 2
    task.model.eval()
    moved = (task.logits(changed) - task.logits(tokens[row : row + 1]))[0].abs().amax(dim=1)
    assert (moved[:last].max() > 0) == ("GPT2" not in type(task.model).__name__)
    assert moved[last] > 0


# --- pre-trained models --------------------------------------------------------------------------


def test_a_new_head_depends_on_the_seed_and_the_body_is_the_models(bank, bert):
    def built(seed):
        config = settings(bank, seed, pretrained=bert)
        return build_task(config, load_federation(config), config.seed).model

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = built(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = built(3), built(4)
    body = BertModel.from_pretrained(bert).state_dict()
    for name, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
        if name.startswith("bert."):
            assert torch.equal(value, body[name.removeprefix("bert.")])
            assert torch.equal(other.state_dict()[name], value)
    assert first.classifier.weight.shape == (17, 16)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert first.classifier.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert first.config.id2label[0] == "ADJ"


def test_a_head_is_kept_if_its_labels_are_these_in_this_order(bank, tmp_path):
    labels = load_federation(settings(bank)).labels
    torch.manual_seed(5)
    heads = {}
    for name, order in (("same", labels), ("turned", labels[::-1]), ("fewer", labels[:4])):
        model = BertForTokenClassification(bert_size(id2label=dict(enumerate(order))))
        config = settings(bank, pretrained=save(tmp_path / name, model))
        built = build_task(config, load_federation(config), config.seed).model.classifier
        heads[name] = model.classifier.weight.equal(built.weight)
        assert built.weight.shape == (17, 16)
    assert heads == {"same": True, "turned": False, "fewer": False}


def test_a_gpt2_that_was_trained_on_text_becomes_a_tagger(bank, tmp_path):
    size = GPT2Config(vocab_size=len(WORDS), n_positions=12, n_embd=16, n_layer=2, n_head=2)
    config = settings(bank, pretrained=save(tmp_path, GPT2LMHeadModel(size)))
    data = load_federation(config)
    task = build_task(config, data, config.seed)
    assert task.evaluate(data.population.test, 8).losses.isfinite().all()


def test_models_that_do_not_fit_are_refused(bank, bert, tmp_path):
    config = parse_config(
        {**settings(bank, pretrained=bert).model_dump(), "data": {"source": f"udpos:{bank}"}}
    )
    data = load_federation(config)
    short = save(tmp_path / "short", BertModel(bert_size(positions=6)))
    with pytest.raises(InputError, match=r"data.window: got 7; expected at most 6"):
        build_task(settings(bank, pretrained=short), data, seed=0)
    model = BertModel(bert_size())
    del model.encoder.layer[1]
    lacking = save(tmp_path / "lacking", model)
    facts = json.loads((Path(lacking) / "config.json").read_text())
    (Path(lacking) / "config.json").write_text(json.dumps({**facts, "num_hidden_layers": 2}))
    with pytest.raises(InputError, match=r"model.pretrained: .*16 are missing, such as bert.encoder.layer.1"):
        build_task(settings(bank, pretrained=lacking), data, seed=0)
    with pytest.raises(InputError, match=r"model.pretrained: .*a directory that exists"):
        build_task(settings(bank, pretrained=str(tmp_path / "nothing")), data, seed=0)
