"""Turns labelled images into the tensors of an image classification, and computes pixel statistics."""

from __future__ import annotations

from math import sqrt

import numpy as np
import torch

from fedtlu_fast.data.federated import Encoded
from fedtlu_fast.data.image_set import ImageSet, Pixels
from fedtlu_fast.data.labelled import check_labels, drawn_test, take
from fedtlu_fast.data.population import Batch
from fedtlu_fast.data.sources.source import Read
from fedtlu_fast.errors import InputError


def image_samples(found: Read[ImageSet], source: str, *, test_fraction: float) -> Encoded:
    """Divides images into training and test samples.

    Args:
        found: the images. If they have no test part, a share of every kind is drawn for it.
        source: the source as settings write it, for messages.
        test_fraction: share of the images that is drawn for the test.

    Returns:
        Images [N, C, H, W] uint8 and labels [N] int64. The first attribute is ``label``; ``pixels`` holds the
        statistics of the training images, in steps of a pixel (0 to 255).

    Raises:
        InputError: all images have one label, or training and test images differ in size or channels.
    """
    train, test = found.train, found.test
    if test is None:
        rows = drawn_test(train.attributes, test_fraction)
        train, test = (ImageSet(train.images[own], take(train.attributes, own)) for own in rows)
    label = check_labels(train.attributes, source)
    if train.images.shape[1:] != test.images.shape[1:]:
        given = f"{train.images.shape[1:]} to train on and {test.images.shape[1:]} to test on"
        raise InputError("data.source", given, "images of one size and kind", "Set data.image_size.")
    return Encoded(
        train=_batch(train),
        test=_batch(test),
        origin=found.origin,
        inputs=train.images[0].size,
        outputs=len(label.names),
        attributes=train.attributes,
        labels=label.names,
        pixels=statistics(train.images),
    )


def statistics(images: Pixels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Computes mean and standard deviation of each channel over the pixels of all images.

    Args:
        images: [N, C, H, W] uint8.

    Returns:
        The means [C] and the standard deviations [C], where 1 replaces a deviation of 0.
    """
    shades, moments = np.arange(256), []
    for channel in range(images.shape[1]):
        counts = np.zeros(256, np.int64)
        # Part by part: counting takes eight bytes for each pixel.
        for first in range(0, len(images), 1024):
            counts += np.bincount(images[first : first + 1024, channel].reshape(-1), minlength=256)
        # Python's integers do not round.
        total, linear, square = (int((counts * shades**power).sum()) for power in range(3))
        moments.append((linear / total, sqrt((total * square - linear**2) / total**2) or 1.0))
    means, deviations = zip(*moments, strict=True)
    return means, deviations


def _batch(found: ImageSet) -> Batch:
    return torch.from_numpy(found.images), torch.from_numpy(found.attributes["label"].codes)
