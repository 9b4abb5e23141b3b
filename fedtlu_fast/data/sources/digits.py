"""The embedded default for image classification: scikit-learn's handwritten digits."""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from fedtlu_fast.data.dealing import Attribute
from fedtlu_fast.data.image_set import ImageSet, ImageSize
from fedtlu_fast.data.sources.source import ImageSource, Read
from fedtlu_fast.data.splits import announce
from fedtlu_fast.parts import part


@part
class Digits(ImageSource):
    """1,797 handwritten digits of 8 x 8 pixels: the test part of UCI's optical digits.

    Their 17 shades of grey are scaled to 0 to 255.

    Attributes:
        image_size: side in pixels of a square to which images are scaled; null: they keep their size.
    """

    image_size: ImageSize = None

    @override
    def images(self) -> Read[ImageSet]:
        # Imported here because scikit-learn takes a second to import.
        from sklearn import datasets

        from fedtlu_fast.data.pixels import scale_all

        images, label = datasets.load_digits(return_X_y=True)
        shades = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
        attributes = {"label": Attribute(label.astype(np.int64), tuple("0123456789"))}
        origin = announce("images", None)
        return Read(ImageSet(scale_all(shades, self.image_size), attributes), None, origin)
