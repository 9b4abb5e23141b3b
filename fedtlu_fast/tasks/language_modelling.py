"""Causal language modelling: a GPT-2 or our Transformer of any size, or any pre-trained causal model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedtlu_fast.config import ModelConfig
from fedtlu_fast.data.federated import Encoded, FederatedData
from fedtlu_fast.data.population import Batch, Pool, whole
from fedtlu_fast.data.running_text import window_samples
from fedtlu_fast.data.sources.source import DocumentSource, Source, TokenSource
from fedtlu_fast.part import part
from fedtlu_fast.pretrained import load_model
from fedtlu_fast.randomness import torch_seeded
from fedtlu_fast.tasks.builder import Reading, TaskBuilder
from fedtlu_fast.tasks.metrics import PERPLEXITY, Evaluation
from fedtlu_fast.tasks.transformer import Transformer


@dataclass(frozen=True)
class LanguageModelling:
    """Next-token prediction over a batch of one tensor, [B, T + 1] token ids."""

    model: nn.Module
    figures = (PERPLEXITY,)
    by_sample = True

    def loss(self, batch: Batch) -> Tensor:
        """Mean negative log-likelihood per token, in nats (scalar)."""
        logits, targets = self._predict(batch[0])
        return F.cross_entropy(logits, targets)

    def losses(self, batch: Batch) -> Tensor:
        """[B]: each sample's mean negative log-likelihood per token, in nats."""
        logits, targets = self._predict(batch[0])
        return F.cross_entropy(logits, targets, reduction="none").view(len(batch[0]), -1).mean(dim=1)

    def counts(self, batch: Batch) -> Tensor:
        """[B]: T each."""
        count, length = batch[0].shape
        return torch.full((count,), length - 1, device=batch[0].device)

    def trim(self, batch: Batch) -> Batch:
        """See `Task.trim`. All windows are full."""
        return batch

    @torch.no_grad()
    def evaluate(self, samples: Pool, batch_size: int) -> Evaluation:
        """Losses."""
        self.model.eval()
        batch = whole(samples)
        losses = []
        for windows in torch.split(batch[0], batch_size):
            logits, targets = self._predict(windows)
            nats = F.cross_entropy(logits, targets, reduction="none")
            losses.append(nats.view(len(windows), -1).double().mean(dim=1).cpu())
        return Evaluation(torch.cat(losses), self.counts(batch).cpu())

    def logits(self, inputs: Tensor) -> Tensor:
        """[B, T, V] in float32, of token ids [B, T]."""
        if isinstance(self.model, Transformer):
            own: Tensor = self.model(inputs)
            return own.float()
        found: Tensor = self.model(input_ids=inputs, use_cache=False).logits
        return found.float()

    def _predict(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B * T, V] in float32 and target ids [B * T]."""
        return self.logits(samples[:, :-1]).flatten(0, 1), samples[:, 1:].flatten()


@part
class LanguageModellingBuilder(TaskBuilder):
    """Next-token prediction over running text."""

    reads = (DocumentSource, TokenSource)
    noises = ("token_noise",)

    def read(self, source: Source, reading: Reading) -> Encoded | FederatedData:
        """See `TaskBuilder`."""
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


def build_model(config: ModelConfig, vocabulary: int, window: int, seed: int) -> nn.Module:
    """A fresh model of the size in the settings, or the pre-trained weights they name, in float32.

    A fresh one has no dropout; a pre-trained one keeps what its own configuration says.

    Args:
        config: GPT-2 (the default) or our Transformer, and its size; or the name of weights.
        vocabulary: number of token ids.
        window: tokens the model reads at a time.
        seed: of the initialisation.

    Raises:
        InputError: weights that cannot be loaded.
    """
    if config.pretrained is None and config.architecture == "transformer":
        return Transformer.build(config, vocabulary, window, vocabulary, seed, causal=True)
    # transformers takes seconds to import.
    from transformers import AutoModelForCausalLM, GPT2LMHeadModel

    if config.pretrained is None:
        with torch_seeded(seed, "initial weights"):
            fresh: nn.Module = GPT2LMHeadModel(gpt2_size(config, vocabulary, window))
        return fresh
    return load_model(AutoModelForCausalLM, config.pretrained, "a causal language model")


def gpt2_size(config: ModelConfig, vocabulary: int, window: int, **more: Any) -> Any:
    """A configuration of `transformers` for a GPT-2 without dropout.

    Args:
        config: blocks, width and heads.
        vocabulary: number of token ids.
        window: tokens it reads at a time.
        more: for `GPT2Config`.
    """
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=vocabulary,
        n_positions=window,
        n_embd=config.width,
        n_layer=config.layers,
        n_head=config.heads,
        # GPT-2's own activation, fused: "gelu_new" is the same function in eight steps.
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
        **more,
    )
