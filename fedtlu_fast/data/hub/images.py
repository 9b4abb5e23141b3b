"""Labelled images from data sets that `datasets` loads."""

from __future__ import annotations

from typing import Any

from fedtlu_fast.data.hub.labels import load_splits, read_attributes
from fedtlu_fast.data.hub.location import Location
from fedtlu_fast.data.image_set import PIXELS, ImageSet, Pixels
from fedtlu_fast.data.pixels import read_images
from fedtlu_fast.data.sources.source import Read
from fedtlu_fast.errors import InputError


def load_image_hub(location: Location, size: int | None, limit: int = PIXELS) -> Read[ImageSet]:
    """Loads a data set with a column of images and a column of labels (see `read_attributes`).

    The first column of images is read. Splits are divided by their names (see `splits`).

    Args:
        location: the place of the data set.
        size: side of a square to which images are scaled; see `read_images`.
        limit: most pixels of one image file; see `read_images`.

    Raises:
        InputError: the data set cannot be loaded, or has no images or no labels; or see `read_images`.
    """
    splits, origin = load_splits(location, "images")
    attributes = read_attributes(splits, location)
    sets = [
        ImageSet(_images(split, location, size, limit), own)
        for split, own in zip(splits, attributes, strict=True)
    ]
    return Read(sets[0], sets[1] if len(sets) > 1 else None, origin)


def _images(split: Any, location: Location, size: int | None, limit: int) -> Pixels:
    from datasets import Image

    name = location.source
    column = next((key for key, feature in split.features.items() if _holds_images(feature)), None)
    if column is None:
        expected = f"a column of images; it has {', '.join(split.column_names)}"
        raise InputError("data.source", name, expected)
    files = split.cast_column(column, Image(decode=False))[column]
    contents = [file["bytes"] or file["path"] if file else b"" for file in files]
    return read_images(contents, lambda place: f"{name}, {split.split}[{place}]", size, limit)


def _holds_images(feature: Any) -> bool:
    """Tells whether a column holds images, or bytes and paths, as in Parquet files that name no type."""
    from datasets import Image

    return isinstance(feature, Image) or (isinstance(feature, dict) and {"bytes", "path"} == feature.keys())
