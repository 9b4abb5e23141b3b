"""The type of labelled images, and the limits of their size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedtlu_fast.data.labelled import Attributes

Pixels = NDArray[np.uint8]
"""Images as numbers from 0 to 255."""
PIXELS = 2**26
"""Default limit of the pixels of one image file: 8,192 x 8,192."""
ImageSize = Annotated[int, Field(ge=1, le=4096)] | None
ImagePixels = Annotated[int, Field(ge=1, le=2**27)]


@dataclass(frozen=True)
class ImageSet:
    """N images with their attributes.

    Attributes:
        images: [N, C, H, W] uint8, greyscale (one channel) or RGB (three).
        attributes: ``label``, and further attributes such as ``domain``. The attributes of a source's
            training and test images have the same names and codes.
    """

    images: Pixels
    attributes: Attributes
