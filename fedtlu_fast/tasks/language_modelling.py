"""Causal language modelling with a GPT-2 or our Transformer of any size, or any pre-trained causal model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from fedtlu_fast.data.federated import Encoded, FederatedData
from fedtlu_fast.data.population import Batch, Pool, whole
from fedtlu_fast.data.running_text import window_samples
from fedtlu_fast.data.sources.source import DocumentSource, Source, TokenSource
from fedtlu_fast.models.architecture import Architecture, Needs, of_transformers
from fedtlu_fast.models.pretrained import load_model
from fedtlu_fast.parts import part
from fedtlu_fast.tasks.builder import Reading, TaskBuilder
from fedtlu_fast.tasks.cross_entropy import cross_entropy
from fedtlu_fast.tasks.metrics import PERPLEXITY, Evaluation
from fedtlu_fast.tasks.pretrained_check import check_reader


@dataclass(frozen=True)
class LanguageModelling:
    """Prediction of next tokens; a batch is one tensor of token ids, [B, T + 1] int64."""

    model: nn.Module
    figures = (PERPLEXITY,)
    by_sample = True

    def loss(self, batch: Batch) -> Tensor:
        """Returns the mean negative log-likelihood per token, in nats (scalar)."""
        logits, targets = self._predict(batch[0])
        return cross_entropy(logits, targets)

    def losses(self, batch: Batch) -> Tensor:
        """Returns [B], each sample's mean negative log-likelihood per token, in nats."""
        logits, targets = self._predict(batch[0])
        return F.cross_entropy(logits, targets, reduction="none").view(len(batch[0]), -1).mean(dim=1)

    def counts(self, batch: Batch) -> Tensor:
        """Returns [B], T for each sample."""
        count, length = batch[0].shape
        return torch.full((count,), length - 1, device=batch[0].device)

    def trim(self, batch: Batch) -> Batch:
        """See `Task.trim`. All windows are full, so nothing is cut."""
        return batch

    @torch.no_grad()
    def evaluate(self, samples: Pool, batch_size: int) -> Evaluation:
        """See `Task.evaluate`."""
        self.model.eval()
        batch = whole(samples)
        losses = []
        for windows in torch.split(batch[0], batch_size):
            logits, targets = self._predict(windows)
            nats = F.cross_entropy(logits, targets, reduction="none")
            losses.append(nats.view(len(windows), -1).double().mean(dim=1).cpu())
        return Evaluation(torch.cat(losses), self.counts(batch).cpu())

    def logits(self, inputs: Tensor) -> Tensor:
        """Returns logits [B, T, V] float32 for token ids [B, T]."""
        if of_transformers(self.model):
            found: Tensor = self.model(input_ids=inputs, use_cache=False).logits
            return found.float()
        own: Tensor = self.model(inputs)
        return own.float()

    def _predict(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits [B * T, V] float32 and target ids [B * T] of samples [B, T + 1]."""
        return self.logits(samples[:, :-1]).flatten(0, 1), samples[:, 1:].flatten()


@part
class LanguageModellingBuilder(TaskBuilder):
    """Builds the task that predicts the next tokens of running text."""

    reads = (DocumentSource, TokenSource)
    architectures = ("gpt2", "transformer")
    new_head = False
    noises = ("token_noise",)

    @override
    def read(self, source: Source, reading: Reading) -> Encoded | FederatedData:
        if isinstance(source, TokenSource):
            return source.tokens(reading.clients, reading.window, reading.vocabulary)
        assert isinstance(source, DocumentSource)
        return window_samples(
            source.documents(),
            window=reading.window,
            vocabulary=reading.vocabulary,
            test_fraction=reading.test_fraction,
            tokenizer=reading.tokenizer,
        )

    @override
    def build(self, data: FederatedData, architecture: Architecture, seed: int) -> LanguageModelling:
        needs = Needs("next token", data.inputs, data.outputs, vocabulary=data.outputs)
        return LanguageModelling(architecture.build(needs, seed))

    def build_pretrained(self, data: FederatedData, name: str, seed: int) -> LanguageModelling:
        """See `TaskBuilder`. The model keeps the dropout of its own configuration."""
        # transformers takes seconds to import.
        from transformers import AutoModelForCausalLM

        task = LanguageModelling(load_model(AutoModelForCausalLM, name, "a causal language model"))
        check_reader(task, name, data, causal=True)
        return task
