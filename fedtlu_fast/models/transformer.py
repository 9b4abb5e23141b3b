"""Our own Transformer: an encoder for labels of tokens, or, with a causal mask, a language model.

Its blocks normalise their inputs (pre-LN), its positions are learned, and it has neither dropout nor tied
tensors. FedTLU's paper says of its "6-layer Transformer" only the number of layers; everything else is our
choice, with GPT-2's initialisation.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedtlu_fast.models.architecture import INITIAL, Architecture, Needs, Size, check_heads
from fedtlu_fast.parts import part
from fedtlu_fast.randomness import torch_seeded

SPREAD = 0.02
"""Standard deviation of the initial weights."""


@part
class TransformerModel(Architecture):
    """Our Transformer.

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

    def build(self, needs: Needs, seed: int) -> Transformer:
        """See `Architecture`. Every token sees the whole sample, unless the model predicts next tokens."""
        causal = needs.predicts == "next token"
        return Transformer.build(self, needs.vocabulary, needs.inputs, needs.outputs, seed, causal=causal)


class Transformer(nn.Module):
    """Maps token ids [B, T] to logits [B, T, outputs]."""

    def __init__(
        self, size: TransformerModel, vocabulary: int, positions: int, outputs: int, *, causal: bool
    ) -> None:
        """Draws the initial weights from torch's generator; see `build`.

        Args:
            size: blocks, width and heads.
            vocabulary: number of token ids.
            positions: largest number of tokens in a sample.
            outputs: number of logits for each token.
            causal: whether a token sees only itself and the tokens before it.
        """
        super().__init__()
        self.causal = causal
        self.tokens = nn.Embedding(vocabulary, size.width)
        self.positions = nn.Embedding(positions, size.width)
        self.blocks = nn.ModuleList(Block(size.width, size.heads) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, outputs)
        for name, param in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(param)
            elif param.dim() > 1:
                # Every block adds two terms to the residual stream; the spread of their sum stays the same.
                terms = 2 * size.layers if name.endswith(("merge.weight", "shrink.weight")) else 1
                nn.init.normal_(param, std=SPREAD / sqrt(terms))

    @classmethod
    def build(
        cls, size: TransformerModel, vocabulary: int, positions: int, outputs: int, seed: int, *, causal: bool
    ) -> Transformer:
        """Makes a model whose weights depend on the seed only; the other arguments are those of the class."""
        with torch_seeded(seed, INITIAL):
            return cls(size, vocabulary, positions, outputs, causal=causal)

    def forward(self, tokens: Tensor, real: Tensor | None = None) -> Tensor:
        """Returns logits [B, T, outputs].

        Args:
            tokens: [B, T] int64.
            real: [B, T] bool, false at padding, which no token sees; None: there is no padding.
        """
        places = torch.arange(tokens.shape[-1], device=tokens.device)
        x = self.tokens(tokens) + self.positions(places)
        # The first token is always visible, because a softmax over no token is NaN.
        mask = None if real is None else (real | (places == 0)).unsqueeze(-2).unsqueeze(-2)
        for block in self.blocks:
            x = block(x, mask, self.causal)
        logits: Tensor = self.head(self.norm(x))
        return logits


class Block(nn.Module):
    """Attention, then two layers for each token; the results of both are added to their inputs."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.split = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.token_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.shrink = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """Maps [B, T, width] to the same shape; `mask` [B, 1, 1, T] is false at tokens that no token sees."""
        parts = self.split(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = (part.transpose(-3, -2) for part in parts.unbind(dim=-3))
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        x = x + self.merge(seen.transpose(-3, -2).flatten(-2))
        added: Tensor = self.shrink(F.gelu(self.expand(self.token_norm(x)), approximate="tanh"))
        return x + added
