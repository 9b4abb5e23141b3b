"""Labelled images."""

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
"""Most pixels of one image's file, where settings say nothing else: 8,192 x 8,192."""
ImageSize = Annotated[int, Field(ge=1, le=4096)] | None
ImagePixels = Annotated[int, Field(ge=1, le=2**27)]


@dataclass(frozen=True)
class ImageSet:
    """N images, and what is known of them.

    Attributes:
        images: [N, C, H, W] uint8, greyscale (one channel) or RGB.
        attributes: ``label``, what they show, and what else is known, such as ``domain``. Training and test
            images of a source have the same names.
    """

    images: Pixels
    attributes: Attributes
