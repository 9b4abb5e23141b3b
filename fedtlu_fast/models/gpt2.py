"""A fresh GPT-2 of any size, from `transformers`, without dropout."""

from __future__ import annotations

from typing import Any

from torch import nn
from typing_extensions import override

from fedtlu_fast.models.architecture import INITIAL, Architecture, Needs, Size, check_heads
from fedtlu_fast.parts import part
from fedtlu_fast.randomness import torch_seeded


@part
class Gpt2Model(Architecture):
    """A GPT-2, in which a token sees only itself and the tokens before it.

    Attributes:
        layers: number of blocks.
        width: embedding width.
        heads: number of attention heads; has to divide the width.
    """

    layers: Size = 6
    width: Size = 64
    heads: Size = 4

    def __post_init__(self) -> None:
        """Checks that the heads divide the width."""
        check_heads(self.width, self.heads)

    @override
    def build(self, needs: Needs, seed: int) -> nn.Module:
        # transformers takes seconds to import.
        from transformers import GPT2ForTokenClassification, GPT2LMHeadModel

        if needs.predicts == "next token":
            with torch_seeded(seed, INITIAL):
                speaker: nn.Module = GPT2LMHeadModel(self._size(needs))
            return speaker
        size = self._size(needs, num_labels=needs.outputs, classifier_dropout=0.0, use_cache=False)
        with torch_seeded(seed, INITIAL):
            tagger: nn.Module = GPT2ForTokenClassification(size)
        return tagger

    def _size(self, needs: Needs, **more: Any) -> Any:
        from transformers import GPT2Config

        return GPT2Config(
            vocab_size=needs.vocabulary,
            n_positions=needs.inputs,
            n_embd=self.width,
            n_layer=self.layers,
            n_head=self.heads,
            # GPT-2's own activation as one fused operation; "gelu_new" is the same function in eight
            # operations.
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=None,
            eos_token_id=None,
            **more,
        )
