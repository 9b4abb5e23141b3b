"""An image classification's data: images from the source that the settings name, and how they are divided."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
import torch

from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.dealing import Attribute
from fedtlu_fast.data.hub.images import load_image_hub
from fedtlu_fast.data.image_set import ImageSet, Splits
from fedtlu_fast.data.labelled import Attributes, drawn_test, take
from fedtlu_fast.data.pixels import PIXELS, Pixels, scale_all
from fedtlu_fast.data.population import Batch
from fedtlu_fast.data.sources.cifar import load_cifar
from fedtlu_fast.data.sources.image_folder import load_image_folder
from fedtlu_fast.data.splits import Origin, announce
from fedtlu_fast.errors import InputError


@dataclass(frozen=True)
class ImageSamples:
    """Samples and what is known of them.

    Attributes:
        train: images [N, C, H, W] uint8 and labels [N] int64.
        test: the same, [M].
        attributes: of the training samples: ``label`` first.
        labels: names of the labels.
        pixels: means and standard deviations of the training images' channels, C of either, in steps of a
            pixel (0 to 255).
        origin: of both.
    """

    train: Batch
    test: Batch
    attributes: Attributes
    labels: tuple[str, ...]
    pixels: tuple[tuple[float, ...], tuple[float, ...]]
    origin: Origin | None


def image_samples(config: RunConfig) -> ImageSamples:
    """Reads and divides the images of the settings' source.

    Raises:
        InputError: the source cannot be read; its images have several sizes, or one label; training and
            test images are not of the same kind.
    """
    train, test = load_images(config.data.source, config.data.image_size, config.data.image_pixels)
    origin = train.origin
    if test is None:
        rows = drawn_test(train.attributes, config.data.test_fraction)
        train, test = (ImageSet(train.images[own], take(train.attributes, own)) for own in rows)
    label = train.attributes["label"]
    if len(label.names) < 2:
        raise InputError("data.source", config.data.source, f"two labels or more; all are {label.names}")
    if train.images.shape[1:] != test.images.shape[1:]:
        given = f"{train.images.shape[1:]} to train on and {test.images.shape[1:]} to test on"
        raise InputError("data.source", given, "images of one size and kind", "Set data.image_size.")
    return ImageSamples(
        train=_batch(train),
        test=_batch(test),
        attributes=train.attributes,
        labels=label.names,
        pixels=statistics(train.images),
        origin=origin,
    )


def load_images(source: str, size: int | None, limit: int = PIXELS) -> Splits:
    """Reads labelled images.

    Args:
        source: ``digits``, ``cifar10:PATH``, ``cifar100:PATH``, ``images:DIR`` or
            ``hf:NAME[:CONFIG][@REVISION]``.
        size: side of a square to which images are scaled; None: as they are.
        limit: most pixels of one image's file.

    Raises:
        InputError: an unknown source, or one that cannot be read.
    """
    kind, _, rest = source.partition(":")
    if kind == "images" and rest:
        return load_image_folder(rest, size, limit)
    if kind == "hf" and rest:
        return load_image_hub(rest, size, limit)
    if kind in ("cifar10", "cifar100") and rest:
        train, test = load_cifar(kind, rest, size, limit)
    elif source == "digits":
        train, test = load_digits(), None
    else:
        expected = "digits, cifar10:PATH, cifar100:PATH, images:DIR or hf:NAME, for task=image_classification"
        raise InputError("data.source", source, expected)
    scaled = replace(train, images=scale_all(train.images, size))
    return scaled, test and replace(test, images=scale_all(test.images, size))


def load_digits() -> ImageSet:
    """scikit-learn's digits: 1,797 handwritten ones of 8 x 8 pixels (the test part of UCI's optical digits).

    Their 17 shades of grey are spread over 0 to 255.
    """
    # Late: scikit-learn takes a second to import.
    from sklearn import datasets

    images, label = datasets.load_digits(return_X_y=True)
    shades = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    attributes = {"label": Attribute(label.astype(np.int64), tuple("0123456789"))}
    return ImageSet(shades, attributes, announce("images", None))


def statistics(images: Pixels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of all images' pixels; a deviation of 0 is given as 1.

    Args:
        images: [N, C, H, W].
    """
    shades, moments = np.arange(256), []
    for channel in range(images.shape[1]):
        counts = np.zeros(256, np.int64)
        # Part by part: counting takes eight bytes for each pixel.
        for first in range(0, len(images), 1024):
            counts += np.bincount(images[first : first + 1024, channel].reshape(-1), minlength=256)
        # In whole numbers of any size, which round nothing.
        total, linear, square = (int((counts * shades**power).sum()) for power in range(3))
        moments.append((linear / total, sqrt((total * square - linear**2) / total**2) or 1.0))
    means, deviations = zip(*moments, strict=True)
    return means, deviations


def _batch(found: ImageSet) -> Batch:
    return torch.from_numpy(found.images), torch.from_numpy(found.attributes["label"].codes)
