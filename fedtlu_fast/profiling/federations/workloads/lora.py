"""lora: a GPT-2 of five million frozen parameters, of which only adapters on its attention are trained."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from .gpt import Logits, gpt2
from .protocol import Settings
from .text import TextWorkload


class LoraWorkload(TextWorkload):
    """A GPT-2 of 6 layers and width 256, 5.3 million frozen parameters, with LoRA (arXiv 2106.09685).

    They are peft's. The base has random weights in place of pre-trained ones; it costs the same.
    """

    name = "lora"
    packages = ("transformers.models.gpt2.modeling_gpt2", "peft")
    settings = Settings(clients=100, cohort=10, batch=4, steps=4, lr=1.0)
    vocabulary, context = 2000, 64
    layers, width, heads = 6, 256, 8
    rank, alpha = 8, 16
    targets = ("attn.c_attn", "attn.c_proj")

    def base(self) -> Any:
        """Makes the frozen part without adapters, with the same weights at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed(0))
            return gpt2(self.vocabulary, self.context, self.layers, self.width, self.heads)

    def make_model(self) -> nn.Module:
        """See `Workload`."""
        from peft import LoraConfig, inject_adapter_in_model

        model = self.base()
        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, target_modules=list(self.targets), bias="none"
        )
        with warnings.catch_warnings():
            # It only says that GPT-2 stores its matrices transposed.
            warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")
            return Logits(inject_adapter_in_model(config, model))
