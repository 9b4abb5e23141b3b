"""An image classification's data as tensors: images, divided, and the statistics of their pixels."""

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
    """Divides images.

    Args:
        found: the images; without a test, a share of every kind is drawn for it.
        source: they are from, for messages.
        test_fraction: the share that is kept for the test.

    Returns:
        Images [N, C, H, W] uint8 and labels [N] int64. The first attribute is ``label``; ``pixels`` are of
        the training images, in steps of a pixel (0 to 255).

    Raises:
        InputError: the images have one label; training and test images are not of the same kind.
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
