"""A fresh Vision Transformer (Dosovitskiy et al., arXiv 2010.11929), from `transformers`, without dropout."""

from __future__ import annotations

from torch import nn

from fedtlu_fast.errors import InputError
from fedtlu_fast.models.architecture import INITIAL, Architecture, Needs, Size, check_heads, named
from fedtlu_fast.parts import part
from fedtlu_fast.randomness import torch_seeded


@part
class VitModel(Architecture):
    """A Vision Transformer.

    Attributes:
        layers: number of blocks.
        width: embedding width.
        heads: number of attention heads; has to divide the width.
        patch: side in pixels of the squares that a ViT reads; has to divide the images' sides.
    """

    layers: Size = 6
    width: Size = 64
    heads: Size = 4
    patch: Size = 4

    def __post_init__(self) -> None:
        """Checks that the heads divide the width."""
        check_heads(self.width, self.heads)

    def build(self, needs: Needs, seed: int) -> nn.Module:
        """See `Architecture`.

        Raises:
            InputError: the patch does not divide the images' sides.
        """
        from transformers import ViTConfig, ViTForImageClassification

        if any(side % self.patch for side in needs.shape[1:]):
            expected = f"a divisor of the images' sides, {needs.shape[1]} and {needs.shape[2]}"
            raise InputError("model.patch", self.patch, expected)
        size = ViTConfig(
            num_channels=needs.shape[0],
            image_size=needs.shape[1:],
            patch_size=self.patch,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.width,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            **named(needs.labels),
        )
        with torch_seeded(seed, INITIAL):
            fresh: nn.Module = ViTForImageClassification(size)
        return fresh
