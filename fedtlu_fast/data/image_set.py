"""Labelled images."""

from __future__ import annotations

from dataclasses import dataclass

from fedtlu_fast.data.labelled import Attributes
from fedtlu_fast.data.pixels import Pixels
from fedtlu_fast.data.splits import Origin


@dataclass(frozen=True)
class ImageSet:
    """N images, and what is known of them.

    Attributes:
        images: [N, C, H, W] uint8, greyscale (one channel) or RGB.
        attributes: ``label``, what they show, and what else is known, such as ``domain``.
        origin: of these and of the test, with the images to train on.
    """

    images: Pixels
    attributes: Attributes
    origin: Origin | None = None


Splits = tuple[ImageSet, ImageSet | None]
"""Images to train on, and those to test on where the source has some of its own: with the same labels."""
