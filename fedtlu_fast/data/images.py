"""An image classification's data: images from the source that the settings name, and how they are divided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray

from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.dealing import Attribute
from fedtlu_fast.data.population import Batch, Indices
from fedtlu_fast.errors import InputError
from fedtlu_fast.randomness import generator

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageSet:
    """N images, and what is known of them.

    Attributes:
        images: [N, C, H, W] uint8, greyscale (one channel) or RGB.
        label: what they show.
        attributes: what else is known, such as ``domain``.
    """

    images: Pixels
    label: Attribute
    attributes: Mapping[str, Attribute]


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
    """

    train: Batch
    test: Batch
    attributes: Mapping[str, Attribute]
    labels: tuple[str, ...]
    pixels: tuple[tuple[float, ...], tuple[float, ...]]


def image_samples(config: RunConfig) -> ImageSamples:
    """Reads and divides the images of the settings' source.

    Raises:
        InputError: the source cannot be read.
    """
    train, test = _load(config)
    if test is None:
        train, test = cut_test(train, config.data.test_fraction)
    return ImageSamples(
        train=_batch(train),
        test=_batch(test),
        attributes={"label": train.label, **train.attributes},
        labels=train.label.names,
        pixels=statistics(train.images),
    )


def _load(config: RunConfig) -> tuple[ImageSet, ImageSet | None]:
    """Images to train on, and those to test on where the source has some of its own."""
    kind, _, rest = config.data.source.partition(":")
    if kind == "digits" and not rest:
        return load_digits(), None
    raise InputError("data.source", config.data.source, "digits, for task=image_classification")


def load_digits() -> ImageSet:
    """scikit-learn's digits: 1,797 handwritten ones of 8 x 8 pixels (the test part of UCI's optical digits).

    Their 17 shades of grey are spread over 0 to 255.
    """
    from sklearn import datasets

    images, label = datasets.load_digits(return_X_y=True)
    shades = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return ImageSet(shades, Attribute(label.astype(np.int64), tuple("0123456789")), {})


def cut_test(found: ImageSet, test_fraction: float) -> tuple[ImageSet, ImageSet]:
    """Keeps a share of every label's images for the test.

    Which ones is drawn once and for all: runs of every seed are tested on the same. The share is right for
    the whole; a label of few images gives none or one, as the shares of those before it add up.

    Raises:
        InputError: so few images, or such a share, that nothing is left on either side.
    """
    codes = found.label.codes
    order = generator(0, "test images").permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    # Of a label's images in a row, each one at which the share reaches the next whole number.
    reached = (np.arange(1, len(codes) + 1) * test_fraction).astype(np.int64)
    kept = np.diff(reached, prepend=0) > 0
    if not kept.any() or kept.all():
        raise InputError(
            "data.test_fraction", test_fraction, f"a share of {len(codes)} images, not none or all"
        )
    return _rows(found, np.sort(order[~kept])), _rows(found, np.sort(order[kept]))


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


def _rows(found: ImageSet, rows: Indices) -> ImageSet:
    attributes = {name: replace(own, codes=own.codes[rows]) for name, own in found.attributes.items()}
    label = replace(found.label, codes=found.label.codes[rows])
    return ImageSet(found.images[rows], label, attributes)


def _batch(found: ImageSet) -> Batch:
    return torch.from_numpy(found.images), torch.from_numpy(found.label.codes)
