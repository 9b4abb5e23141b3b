"""Causal language modelling with a GPT-2 of any size, or with any pre-trained causal model."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from fedtlu_fast.config import ModelConfig
from fedtlu_fast.data.population import Batch
from fedtlu_fast.errors import InputError
from fedtlu_fast.randomness import torch_seeded


@dataclass(frozen=True)
class LanguageModelling:
    """Next-token prediction over a batch of one tensor, [B, T + 1] token ids."""

    model: nn.Module

    def loss(self, batch: Batch) -> Tensor:
        """Mean negative log-likelihood per token, in nats (scalar)."""
        logits, targets = self._predict(batch[0])
        return F.cross_entropy(logits, targets)

    def losses(self, batch: Batch) -> Tensor:
        """[B]: each sample's mean negative log-likelihood per token, in nats."""
        logits, targets = self._predict(batch[0])
        return F.cross_entropy(logits, targets, reduction="none").view(len(batch[0]), -1).mean(dim=1)

    @torch.no_grad()
    def sample_losses(self, batch: Batch, batch_size: int) -> Tensor:
        """[N] float64 on the CPU: each sample's mean negative log-likelihood per token, in nats."""
        self.model.eval()
        losses = []
        for samples in torch.split(batch[0], batch_size):
            logits, targets = self._predict(samples)
            nats = F.cross_entropy(logits, targets, reduction="none")
            losses.append(nats.view(len(samples), -1).double().mean(dim=1).cpu())
        return torch.cat(losses)

    def _predict(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B * T, V] in float32 and target ids [B * T]."""
        logits = self.model(input_ids=samples[:, :-1], use_cache=False).logits
        return logits.float().flatten(0, 1), samples[:, 1:].flatten()


def build_model(config: ModelConfig, vocabulary: int, window: int, seed: int) -> nn.Module:
    """A fresh GPT-2 of the size in the settings, or the pre-trained weights they name, in float32.

    A fresh one has no dropout; a pre-trained one keeps what its own configuration says.

    Args:
        config: size, or a name.
        vocabulary: number of token ids.
        window: tokens the model reads at a time.
        seed: of the initialisation.

    Raises:
        InputError: weights that cannot be loaded, or a window longer than the model reads.
    """
    # transformers takes seconds to import, and only this task needs it.
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
    from transformers.utils import logging

    if config.pretrained is None:
        size = GPT2Config(
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
        )
        with torch_seeded(seed, "initial weights"):
            fresh: nn.Module = GPT2LMHeadModel(size)
        return fresh
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(config.pretrained, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        kind = "directory" if Path(config.pretrained).is_dir() else "model name or directory"
        raise InputError(
            "model.pretrained", config.pretrained, f"a {kind} of a causal language model; {reason}"
        ) from error
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and window > longest:
        raise InputError("data.window", window, f"at most {longest}, what {config.pretrained} reads")
    return model
