"""Hugging Face models as tasks: tiny models with random weights, ragged rows, adapters."""

from types import SimpleNamespace

import pytest
import torch
from support.own import federated
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForTokenClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
)

from fedtlu_fast import Federation, Local
from fedtlu_fast.data.datasets import Datasets
from fedtlu_fast.errors import InputError
from fedtlu_fast.simulation.evaluation import global_test
from fedtlu_fast.tasks.hugging_face import HuggingFaceTask, head_of
from fedtlu_fast.tasks.supervised import fitted

WORDS, LABELS = 30, 4


def gpt2(kind, **more):
    torch.manual_seed(0)
    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "summary_first_dropout": 0.0}
    size = {"vocab_size": WORDS, "n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2}
    return kind(GPT2Config(**size, **none, pad_token_id=0, bos_token_id=1, eos_token_id=1, **more))


def bert():
    torch.manual_seed(0)
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0}
    size = {"vocab_size": WORDS, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    return BertForTokenClassification(
        BertConfig(**size, **none, intermediate_size=16, max_position_embeddings=16, num_labels=LABELS)
    )


def rows(kind, seed, count=7):
    """Returns dictionaries of Python lists, like the rows of a Hugging Face Dataset."""
    draws = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        length = int(torch.randint(2, 9, (), generator=draws))
        ids = torch.randint(2, WORDS, (length,), generator=draws).tolist()
        labels = {"tokens": [token % LABELS for token in ids], "language": ids, "text": ids[0] % LABELS}
        found.append(
            {"input_ids": ids, "label" if kind == "text" else "labels": labels[kind], "note": "text"}
        )
    return found


def data_of(kind):
    return Datasets([rows(kind, seed) for seed in range(4)], rows(kind, 99), [rows(kind, 50)] * 4)


CASES = {
    "language": lambda: gpt2(GPT2LMHeadModel),
    "text": lambda: gpt2(GPT2ForSequenceClassification, num_labels=LABELS),
    "tokens": bert,
}


def one_by_one(model, kind, samples):
    """Returns every sample's loss, computed without padding, and its number of labels."""
    losses, counts = [], []
    for row in samples:
        ids = torch.tensor([row["input_ids"]])
        found = model(ids).logits.detach()
        if kind == "text":
            nats = F.cross_entropy(found, torch.tensor([row["label"]]), reduction="none")
        else:
            labels = torch.tensor(row["labels"])
            logits, labels = (found[0, :-1], labels[1:]) if kind == "language" else (found[0], labels)
            nats = F.cross_entropy(logits, labels, reduction="none")
        losses.append(nats.mean().item())
        counts.append(len(nats))
    return losses, counts


@pytest.mark.parametrize("kind", CASES)
def test_ragged_rows_give_the_losses_of_single_samples(kind):
    task, population = fitted(HuggingFaceTask(CASES[kind]()), data_of(kind))
    task.model.eval()
    samples = rows(kind, 0)
    losses, counts = one_by_one(task.model, kind, samples)
    batch = population.train(0).all()
    assert task.counts(batch).tolist() == counts
    assert task.losses(batch).tolist() == pytest.approx(losses, rel=1e-4)
    total = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
    assert task.loss(batch).item() == pytest.approx(total, rel=1e-4)
    assert task.evaluate(population.train(0).pool, 3).loss.item() == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "head", "headline"),
    [
        ("language", "causal", "perplexity"),
        ("text", "classifier", "accuracy"),
        ("tokens", "classifier", "accuracy"),
    ],
)
def test_the_headline_follows_from_the_head(kind, head, headline):
    model = CASES[kind]()
    assert head_of(model) == head
    assert [own.name for own in HuggingFaceTask(model).figures] == [headline]


def test_accuracy_is_of_real_labels_only():
    task, population = fitted(HuggingFaceTask(bert()), data_of("tokens"))
    task.model.eval()
    right = []
    for row in rows("tokens", 99):
        chosen = task.model(torch.tensor([row["input_ids"]])).logits[0].argmax(dim=-1)
        right.append((chosen == torch.tensor(row["labels"])).tolist())
    found = task.evaluate(population.test, 3).means["accuracy"].item()
    assert found == pytest.approx(sum(map(sum, right)) / sum(map(len, right)))


@pytest.mark.parametrize("kind", CASES)
def test_they_are_federated_and_learn_with_the_same_bits_in_processes(kind):
    task = HuggingFaceTask(CASES[kind]())
    with federated(task, data_of(kind), lr=0.1, executor="serial") as federation:
        before = global_test(federation.server, federation.state).loss
        federation.rounds(3)
        serial = federation.state.params
        assert global_test(federation.server, federation.state).loss < before
    again = HuggingFaceTask(CASES[kind]())
    with federated(again, data_of(kind), lr=0.1, executor="processes", workers=2) as federation:
        federation.rounds(3)
        assert torch.equal(federation.state.params, serial)


def test_only_the_adapters_of_a_peft_model_are_trained():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(gpt2(GPT2LMHeadModel), config)
    task = HuggingFaceTask(model)
    assert [own.name for own in task.figures] == ["perplexity"]
    frozen = {name: own.clone() for name, own in model.named_parameters() if not own.requires_grad}
    with federated(task, data_of("language"), executor="serial") as federation:
        assert all("lora_" in name for name in federation.server.layout.names)
        start = federation.state.params.clone()
        federation.rounds(1)
        assert not torch.equal(federation.state.params, start)
    assert all(torch.equal(own, frozen[name]) for name, own in model.named_parameters() if name in frozen)


def test_the_users_collator_is_used():
    class Collator:
        def __call__(self, samples):
            ids = torch.tensor([row["input_ids"][:2] for row in samples])
            return {"input_ids": ids, "labels": ids}

    task, population = fitted(HuggingFaceTask(gpt2(GPT2LMHeadModel), Collator()), data_of("language"))
    assert population.form == {"input_ids": 0, "labels": 1}
    assert task.counts(population.train(0).all()).tolist() == [1] * 7


def test_a_model_that_gives_no_loss_is_named():
    class Headless(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(WORDS, 2)

        def forward(self, input_ids, attention_mask, labels):
            return SimpleNamespace(loss=None, logits=self.table(input_ids))

    data = data_of("tokens")
    task, _ = fitted(HuggingFaceTask(Headless()), data)
    batch = data.population(task.collate).train(0).take([0, 1])
    with pytest.raises(InputError, match=r"model: got 'Headless'; expected .* attention_mask.*; it is None"):
        task.loss(batch)


def test_rows_without_labels_and_batches_without_names_are_refused():
    bare = [{"input_ids": row["input_ids"]} for row in rows("language", 0)]
    task, population = fitted(HuggingFaceTask(gpt2(GPT2LMHeadModel)), Datasets([bare], bare))
    with pytest.raises(InputError, match=r"attention_mask.*batches with labels.*input_ids"):
        task.loss(population.train(0).all())
    with pytest.raises(InputError, match="a row of a Hugging Face Dataset"):
        fitted(HuggingFaceTask(bert()), Datasets([[torch.ones(2)]], [torch.ones(2)]))
    with pytest.raises(InputError, match="a dictionary of tensors"):
        HuggingFaceTask(bert()).loss((torch.ones(2, 3).long(),))


def test_the_adapters_of_a_peft_model_are_saved_and_read(tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM")
    task = HuggingFaceTask(peft.get_peft_model(gpt2(GPT2LMHeadModel), config))
    local = Local(lr=1.0, steps=4, batch_size=4)
    result = Federation(task, data_of("language"), cohort=4, local=local, executor="serial").run(2)
    result.save_pretrained(tmp_path)
    result.save_pretrained(tmp_path / "merged", merge=True)
    merged = GPT2LMHeadModel.from_pretrained(tmp_path / "merged").eval()
    tokens = torch.tensor([[3, 4, 5]])
    torch.testing.assert_close(merged(tokens).logits, result.model(tokens).logits, rtol=1e-4, atol=1e-5)
    assert "| base model | given in Python |" in (tmp_path / "README.md").read_text()
    again = peft.PeftModel.from_pretrained(gpt2(GPT2LMHeadModel), tmp_path).eval()
    tokens = torch.tensor([[3, 4, 5]])
    expected = result.model(tokens).logits
    torch.testing.assert_close(again(tokens).logits, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(gpt2(GPT2LMHeadModel).eval()(tokens).logits, expected, rtol=1e-3)
