"""Models that look at images: our CNN, a fresh ResNet or Vision Transformer, or pre-trained weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from torch import nn

from fedtlu_fast.config import ModelConfig
from fedtlu_fast.data.federated import FederatedData
from fedtlu_fast.data.population import whole
from fedtlu_fast.errors import InputError
from fedtlu_fast.pretrained import load_classifier, load_processor
from fedtlu_fast.pretrained_place import FIELD
from fedtlu_fast.randomness import torch_seeded
from fedtlu_fast.tasks.cnn import Cnn, normalisation

Shape = tuple[int, int, int]
STAGES = 3
"""Of a ResNet: the first as wide as the settings say, each of the others twice as wide as the one before."""
LARGEST_SIDE = 4096
SMALL = 64
"""Images up to this side enter a ResNet as they are; larger ones at a quarter of it, as in the original."""


@dataclass(frozen=True)
class Vision:
    """A model and how it wants images.

    Attributes:
        model: images [B, C, H, W] float32 to logits [B, outputs], or to what holds them.
        mean: of every channel, what is subtracted; in steps of a pixel (0 to 255).
        spread: likewise, what is divided by.
        size: height and width to which images are scaled; None: as they are.
    """

    model: nn.Module
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    size: tuple[int, int] | None = None


def build_vision(config: ModelConfig, data: FederatedData, seed: int) -> Vision:
    """A fresh model of the size in the settings, or the pre-trained weights they name.

    Args:
        config: architecture and size, or the name of weights.
        data: labels, and the images' shape and statistics.
        seed: of everything that is drawn.

    Raises:
        InputError: weights that cannot be loaded or do not fit the images; patches that do not fit them.
    """
    channels, height, width = whole(data.population.test)[0].shape[1:]
    shape = (channels, height, width)
    if config.pretrained is not None:
        return _pretrained(config.pretrained, shape, data, seed)
    build = {"resnet": _resnet, "vit": _vit}.get(config.architecture or "")
    if build is None:
        return Vision(Cnn.build(config, shape, data.outputs, seed), *data.pixels)
    with torch_seeded(seed, "initial weights"):
        return Vision(build(config, shape, data.labels), *data.pixels)


def _resnet(config: ModelConfig, shape: Shape, labels: tuple[str, ...]) -> nn.Module:
    """`transformers`' ResNet of basic blocks (He et al., arXiv 1512.03385)."""
    from transformers import ResNetConfig, ResNetForImageClassification

    depths = [len(range(stage, config.layers, STAGES)) for stage in range(min(STAGES, config.layers))]
    size = ResNetConfig(
        num_channels=shape[0],
        embedding_size=config.width,
        hidden_sizes=[config.width * 2**stage for stage in range(len(depths))],
        depths=depths,
        layer_type="basic",
        **_named(labels),
    )
    model: nn.Module = ResNetForImageClassification(size)
    _replace_(model, nn.BatchNorm2d, lambda own: normalisation(config.norm, own.num_features))
    if max(shape[1:]) <= SMALL:
        stem = nn.Conv2d(shape[0], config.width, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        _replace_(model, nn.MaxPool2d, lambda _: nn.Identity())
        _replace_(model, nn.Conv2d, lambda _: stem, first=True)
    return model


def _vit(config: ModelConfig, shape: Shape, labels: tuple[str, ...]) -> nn.Module:
    """`transformers`' Vision Transformer (Dosovitskiy et al., arXiv 2010.11929), without dropout."""
    from transformers import ViTConfig, ViTForImageClassification

    if any(side % config.patch for side in shape[1:]):
        expected = f"a divisor of the images' sides, {shape[1]} and {shape[2]}"
        raise InputError("model.patch", config.patch, expected)
    size = ViTConfig(
        num_channels=shape[0],
        image_size=shape[1:],
        patch_size=config.patch,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **_named(labels),
    )
    fresh: nn.Module = ViTForImageClassification(size)
    return fresh


def _pretrained(name: str, shape: Shape, data: FederatedData, seed: int) -> Vision:
    """Images are scaled to the size that the model was made for, if it or its processor says one.

    They are normalised as the model's processor says, or, where it brings none, by their own statistics.
    Greyscale goes to all channels of a model for colours.
    """
    from transformers import AutoModelForImageClassification

    model = load_classifier(
        AutoModelForImageClassification, name, "a model that classifies images", data.labels, seed
    )
    settings: Any = model.config
    seen = getattr(settings, "vision_config", settings)  # of a dual encoder, such as CLIP
    channels = getattr(seen, "num_channels", 3)
    if shape[0] not in (1, channels):
        raise InputError(FIELD, name, f"a model for images of {shape[0]} channels; it reads {channels}")
    processor = load_processor(name)
    mean, spread = data.pixels if processor is None else _normalisation(processor, name, channels)
    mean, spread = (part * channels if len(part) == 1 else part for part in (mean, spread))
    return Vision(
        model, mean, spread, _sides(name, getattr(seen, "image_size", None) or _size(processor or {}))
    )


def _sides(name: str, size: Any) -> tuple[int, int] | None:
    """Height and width of the images that a model was made for; None where it was made for any."""
    if size is None:
        return None
    sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, int) and 0 < side <= LARGEST_SIDE for side in sides):
        expected = f"a model for images of 1 to {LARGEST_SIDE} pixels a side; its files say {size}"
        raise InputError(FIELD, name, expected)
    return sides[0], sides[1]


def _size(processor: Mapping[str, Any]) -> Any:
    """What a model's processor scales images to: a side, two sides, or None where it scales none."""
    cropped = processor.get("crop_size") if processor.get("do_center_crop") else None
    given = cropped or (processor.get("size") if processor.get("do_resize", True) else None)
    if not isinstance(given, Mapping):
        return given
    both = [given.get("height"), given.get("width")]
    return given.get("shortest_edge") or (both if all(both) else None)


def _normalisation(
    found: Mapping[str, Any], name: str, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and spread by which the model's processor normalises, in steps of a pixel.

    Raises:
        InputError: what it says is no number for each channel.
    """
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    try:
        step = float(found.get("rescale_factor", 1 / 255) if found.get("do_rescale", True) else 1.0)
        if not found.get("do_normalize", True) or "image_mean" not in found:
            mean, spread = (0.0,), (1 / step,)
        else:
            mean, spread = (_numbers(found[key], step) for key in ("image_mean", "image_std"))
        usable = (
            {len(mean), len(spread)} <= {1, channels} and all(spread) and all(map(isfinite, mean + spread))
        )
    except (TypeError, ValueError, KeyError, ArithmeticError, AttributeError):
        usable = False
    if not usable:
        expected = f"numbers for {channels} channels by which its image processor normalises"
        raise InputError(FIELD, name, expected)
    return mean, spread


def _numbers(given: Any, step: float) -> tuple[float, ...]:
    return tuple(float(number) / step for number in (given if isinstance(given, list) else [given]))


def _named(labels: tuple[str, ...]) -> dict[str, Any]:
    names = dict(enumerate(labels))
    return {"id2label": names, "label2id": {label: code for code, label in names.items()}}


def _replace_(
    model: nn.Module, kind: type[nn.Module], make: Callable[[Any], nn.Module], *, first: bool = False
) -> None:
    """Puts others in place of modules of a kind, or of the first; by kind: names are the library's."""
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, kind)]
    for name, module in found[: 1 if first else None]:
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, make(module))
