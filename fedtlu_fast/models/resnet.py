"""A fresh ResNet of basic blocks (He et al., arXiv 1512.03385), from `transformers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from typing_extensions import override

from fedtlu_fast.models.architecture import INITIAL, Architecture, Needs, Norm, Size, named
from fedtlu_fast.models.cnn import normalisation
from fedtlu_fast.parts import part
from fedtlu_fast.randomness import torch_seeded

STAGES = 3
"""Number of stages; each stage is twice as wide as the one before."""
SMALL = 64
"""Largest side, in pixels, of images that keep their size in the stem; larger ones shrink to a quarter, as in
He et al."""


@part
class ResNetModel(Architecture):
    """A ResNet.

    Attributes:
        layers: number of blocks, in three stages.
        width: number of channels of the first stage.
        norm: normalisation of the channels: group | batch | none.
    """

    layers: Size = 6
    width: Size = 64
    norm: Norm = "group"

    @override
    def build(self, needs: Needs, seed: int) -> nn.Module:
        with torch_seeded(seed, INITIAL):
            return self._drawn(needs)

    def _drawn(self, needs: Needs) -> nn.Module:
        from transformers import ResNetConfig, ResNetForImageClassification

        depths = [len(range(stage, self.layers, STAGES)) for stage in range(min(STAGES, self.layers))]
        size = ResNetConfig(
            num_channels=needs.shape[0],
            embedding_size=self.width,
            hidden_sizes=[self.width * 2**stage for stage in range(len(depths))],
            depths=depths,
            layer_type="basic",
            **named(needs.labels),
        )
        model: nn.Module = ResNetForImageClassification(size)
        _replace_(model, nn.BatchNorm2d, lambda own: normalisation(self.norm, own.num_features))
        if max(needs.shape[1:]) <= SMALL:
            stem = nn.Conv2d(needs.shape[0], self.width, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
            _replace_(model, nn.MaxPool2d, lambda _: nn.Identity())
            _replace_(model, nn.Conv2d, lambda _: stem, first=True)
        return model


def _replace_(
    model: nn.Module, kind: type[nn.Module], make: Callable[[Any], nn.Module], *, first: bool = False
) -> None:
    """Replaces all modules of a kind, or the first, whatever their names, which the library may change."""
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, kind)]
    for name, module in found[: 1 if first else None]:
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, make(module))
