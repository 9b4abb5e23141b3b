"""The embedded default for image classification: scikit-learn's handwritten digits."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
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
        from fedtlu_fast.data.pixels import scale_all

        images, label = read_digits()
        shades = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
        attributes = {"label": Attribute(label, tuple("0123456789"))}
        origin = announce("images", None)
        return Read(ImageSet(scale_all(shades, self.image_size), attributes), None, origin)


def read_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns the shades [1797, 64], 0 to 16, and the digits [1797].

    It reads scikit-learn's file, since importing scikit-learn takes up to two seconds; its function is called
    where a version keeps the file elsewhere.
    """
    package = find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder, "datasets", "data", "digits.csv.gz")
        if file.exists():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1].astype(np.int64)
    from sklearn import datasets

    images, labels = datasets.load_digits(return_X_y=True)
    return images, labels.astype(np.int64)
