"""Loads pre-trained models for images, and the scaling and normalisation that they expect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from torch import nn

from fedtlu_fast.data.federated import FederatedData
from fedtlu_fast.data.population import whole
from fedtlu_fast.errors import InputError
from fedtlu_fast.models.pretrained import load_classifier, load_processor
from fedtlu_fast.models.pretrained_place import FIELD

LARGEST_SIDE = 4096


@dataclass(frozen=True)
class Vision:
    """A model for images, and the preparation of its images.

    Attributes:
        model: maps images [B, C, H, W] float32 to logits [B, outputs], or to an output with ``.logits``.
        mean: [C], the number that is subtracted from every channel, in steps of a pixel (0 to 255).
        spread: [C], the number by which every channel is divided, in the same unit.
        size: height and width to which images are scaled; None: they keep their size.
    """

    model: nn.Module
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    size: tuple[int, int] | None = None


def image_shape(data: FederatedData) -> tuple[int, ...]:
    """Returns channels, height and width of the images."""
    return tuple(whole(data.population.test)[0].shape[1:])


def pretrained_vision(name: str, data: FederatedData, seed: int) -> Vision:
    """Loads a pre-trained model with a head for these labels.

    Images are scaled to the size for which the model was made, if its configuration or its image processor
    says one. They are normalised as the processor says, or by their own statistics if there is no processor.
    Greyscale images fill all channels of a model for colours.

    Args:
        name: a hub name, a local directory or a GGUF file.
        data: labels, and the images' shape and statistics.
        seed: the run's seed, for a head that is drawn.

    Raises:
        InputError: the weights cannot be loaded or do not fit the images.
    """
    from transformers import AutoModelForImageClassification

    shape = image_shape(data)

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
    """Returns height and width of the images for which a model was made; None if it reads any size."""
    if size is None:
        return None
    sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, int) and 0 < side <= LARGEST_SIDE for side in sides):
        expected = f"a model for images of 1 to {LARGEST_SIDE} pixels a side; its files say {size}"
        raise InputError(FIELD, name, expected)
    return sides[0], sides[1]


def _size(processor: Mapping[str, Any]) -> Any:
    """Returns the size to which a model's processor scales images: a side, two sides, or None."""
    cropped = processor.get("crop_size") if processor.get("do_center_crop") else None
    given = cropped or (processor.get("size") if processor.get("do_resize", True) else None)
    if not isinstance(given, Mapping):
        return given
    both = [given.get("height"), given.get("width")]
    return given.get("shortest_edge") or (both if all(both) else None)


def _normalisation(
    found: Mapping[str, Any], name: str, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and spread by which the model's processor normalises, in steps of a pixel.

    Raises:
        InputError: the processor does not give a number for each channel.
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
