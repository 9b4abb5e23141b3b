"""Tagging: predicts a label for every word of a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from fedtlu_fast.data.federated import Encoded, FederatedData
from fedtlu_fast.data.population import Batch, Pool, whole
from fedtlu_fast.data.sources.source import SentenceSource, Source
from fedtlu_fast.data.tagging import NO_LABEL, tag_samples
from fedtlu_fast.models.architecture import Architecture, Needs, of_transformers, takes_real
from fedtlu_fast.models.pretrained import load_classifier
from fedtlu_fast.parts import part
from fedtlu_fast.tasks.builder import Reading, TaskBuilder
from fedtlu_fast.tasks.metrics import ACCURACY, PERPLEXITY, Evaluation, tally
from fedtlu_fast.tasks.pretrained_check import check_reader


@dataclass(frozen=True)
class Tagging:
    """Prediction of one of C labels for each word.

    A batch is (tokens [B, T] int64, labels [B, T] int64 with `NO_LABEL` where there is nothing to predict).

    Attributes:
        model: our Transformer, or a token classifier of `transformers`.
        labels: [C], names of the labels.
        padding: the token id that fills up sentences; no other token sees it.
    """

    model: nn.Module
    labels: tuple[str, ...]
    padding: int = 0
    figures = (ACCURACY, PERPLEXITY)
    by_sample = True

    def loss(self, batch: Batch) -> Tensor:
        """Returns the mean negative log-likelihood per labelled word, in nats (scalar); 0 without labels."""
        tokens, labels = batch
        total = F.cross_entropy(
            self.logits(tokens).flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL, reduction="sum"
        )
        return total / self.counts(batch).sum().clamp(min=1)

    def losses(self, batch: Batch) -> Tensor:
        """Returns [B], each sentence's mean negative log-likelihood per labelled word, in nats, or 0."""
        tokens, labels = batch
        return self._nats(self.logits(tokens), labels).sum(dim=1) / self.counts(batch).clamp(min=1)

    def counts(self, batch: Batch) -> Tensor:
        """Returns [B] int64, the number of labelled words in each sentence."""
        return (batch[1] != NO_LABEL).sum(dim=-1)

    def trim(self, batch: Batch) -> Batch:
        """See `Task.trim`. Sentences are cut to the longest one; at least one token is kept."""
        tokens, labels = batch
        longest = max(1, int(self._lengths(batch).amax()))
        return batch if longest == tokens.shape[-1] else (tokens[..., :longest], labels[..., :longest])

    @torch.no_grad()
    def evaluate(self, samples: Pool, batch_size: int) -> Evaluation:
        """See `Task.evaluate`. A batch holds sentences of similar length, which saves padding."""
        self.model.eval()
        batch = whole(samples)
        kinds = len(self.labels)
        losses, hits, tallies = [], [], torch.zeros(3, kinds, dtype=torch.int64)
        order = self._lengths(batch).argsort(stable=True)
        for rows in torch.split(order, batch_size):
            part = self.trim(tuple(tensor[rows] for tensor in batch))
            tokens, labels = part
            logits = self.logits(tokens)
            nats = self._nats(logits, labels).double().sum(dim=1)
            losses.append((nats / self.counts(part).clamp(min=1)).cpu())
            chosen = logits.argmax(dim=-1)
            hits.append((chosen == labels).sum(dim=1).cpu())
            is_word = labels != NO_LABEL
            tallies += tally(labels[is_word].cpu(), chosen[is_word].cpu(), kinds)
        places = order.argsort().cpu()
        return Evaluation(
            losses=torch.cat(losses)[places],
            counts=self.counts(batch).cpu(),
            totals={"accuracy": torch.cat(hits)[places]},
            tallies=tallies,
            labels=self.labels,
        )

    def _lengths(self, batch: Batch) -> Tensor:
        """Returns [B], each sentence's length up to its last token that is not padding or has a label."""
        tokens, labels = batch
        places = torch.arange(1, tokens.shape[-1] + 1, device=tokens.device)
        return (((tokens != self.padding) | (labels != NO_LABEL)) * places).amax(dim=-1)

    def logits(self, tokens: Tensor) -> Tensor:
        """Returns logits [B, T, C] float32 for tokens [B, T]."""
        real = tokens != self.padding
        if not of_transformers(self.model):
            logits: Tensor = self.model(tokens, real) if takes_real(self.model) else self.model(tokens)
        else:
            # GPT-2 looks back only, so padding at the end changes nothing; its mask does not work under vmap.
            kind = getattr(self.model.config, "model_type", "")
            mask = None if kind == "gpt2" else real.long()
            logits = self.model(input_ids=tokens, attention_mask=mask).logits
        return logits.float()

    @staticmethod
    def _nats(logits: Tensor, labels: Tensor) -> Tensor:
        """Returns [B, T], the negative log-likelihoods, 0 where there is no label."""
        flat = F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL, reduction="none"
        )
        return flat.view(labels.shape)


@part
class TaggingBuilder(TaskBuilder):
    """Builds the task that predicts a label for every word of a sentence."""

    reads = (SentenceSource,)
    own_source = "pycode"
    what = "sentences"
    architectures = ("transformer", "gpt2")
    noises = ("label_noise", "token_noise")

    @override
    def read(self, source: Source, reading: Reading) -> Encoded | FederatedData:
        assert isinstance(source, SentenceSource)
        return tag_samples(
            source.sentences(),
            window=reading.window,
            vocabulary=reading.vocabulary,
            test_fraction=reading.test_fraction,
            tokenizer=reading.tokenizer,
        )

    @override
    def build(self, data: FederatedData, architecture: Architecture, seed: int) -> Tagging:
        needs = Needs(
            "every token",
            data.inputs,
            data.outputs,
            vocabulary=data.vocabulary,
            labels=data.labels,
            padding=data.padding,
        )
        return Tagging(architecture.build(needs, seed), data.labels, data.padding)

    def build_pretrained(self, data: FederatedData, name: str, seed: int) -> Tagging:
        """See `TaskBuilder`.

        The pre-trained head is kept if it has the same labels in the same order, as in a model that was saved
        by this package; otherwise a new head is drawn.
        """
        from transformers import AutoModelForTokenClassification

        kind = AutoModelForTokenClassification
        model = load_classifier(kind, name, "a model that tags words", data.labels, seed)
        settings: Any = model.config
        settings.use_cache = False  # past tokens are not needed, because no text is generated
        task = Tagging(model, data.labels, data.padding)
        check_reader(task, name, data)
        return task
