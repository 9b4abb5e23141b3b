"""gpt: a GPT-2 of a million parameters that is trained from the start."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .protocol import Settings
from .text import TextWorkload


class Logits(nn.Module):
    """Wraps a Hugging Face model so that it returns its logits, [batch, position, token]."""

    def __init__(self, lm: nn.Module) -> None:
        super().__init__()
        self.lm = lm

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Returns the logits of these tokens."""
        logits: torch.Tensor = self.lm(tokens).logits
        return logits


def gpt2(vocabulary: int, context: int, layers: int, width: int, heads: int) -> Any:
    """Makes a GPT-2 without dropout from torch's global generator."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=context,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        activation_function="gelu_pytorch_tanh",
        use_cache=False,
        bos_token_id=0,  # GPT-2's own are beyond this vocabulary
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


class GptWorkload(TextWorkload):
    """A GPT-2 of 4 layers, width 128; matrix products take nearly all the time."""

    name = "gpt"
    packages = ("transformers.models.gpt2.modeling_gpt2",)
    settings = Settings(clients=100, cohort=10, batch=16, steps=5)
    vocabulary, context = 2000, 64
    layers, width, heads = 4, 128, 4

    def make_model(self) -> nn.Module:
        """See `Workload`."""
        return Logits(gpt2(self.vocabulary, self.context, self.layers, self.width, self.heads))
