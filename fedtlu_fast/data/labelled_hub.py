"""Labels and other attributes from data sets that `datasets` loads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedtlu_fast.data.hub import load_hub
from fedtlu_fast.data.labelled import Attributes, by_name
from fedtlu_fast.errors import InputError

LABELS = ("label", "labels", "fine_label", "category", "news_category")
"""Columns that may hold the label; the first that is there does."""
MORE = ("coarse_label", "domain", "language")
"""Columns that become attributes."""


def load_splits(location: str) -> list[Any]:
    """The split ``train`` of a data set, and ``test`` where it has one.

    Args:
        location: see `load_hub`.

    Raises:
        InputError: the data set cannot be loaded, or has no split ``train``.
    """
    splits = load_hub(location)
    if "train" not in splits:
        expected = f"a split train; it has {', '.join(splits)}"
        raise InputError("data.source", f"hf:{location.partition('@')[0]}", expected)
    return [splits[name] for name in ("train", "test") if name in splits]


def read_attributes(splits: Sequence[Any], location: str) -> list[Attributes]:
    """``label`` and what else is known of the samples of each split, with the same names in all.

    Labels are strings, or whole numbers with names (`ClassLabel`) or without.

    Args:
        splits: of one data set.
        location: of the data set, for messages.

    Raises:
        InputError: there are no labels, or some are of another kind or missing.
    """
    first = splits[0]
    label = next((column for column in LABELS if column in first.column_names), None)
    name = f"hf:{location.partition('@')[0]}"
    if label is None:
        expected = f"a column {' or '.join(LABELS)}; it has {', '.join(first.column_names)}"
        raise InputError("data.source", name, expected)
    found: list[dict[str, Any]] = [{} for _ in splits]
    for attribute, column in [("label", label), *((more, more) for more in MORE)]:
        if all(column in split.column_names for split in splits):
            names = getattr(first.features[column], "names", None)
            values = [_values(split[column], names, f"{name}, column {column}") for split in splits]
            if names is None:
                # Numbers by size, not by their first digit.
                names = sorted({value for own in values for value in own}, key=lambda own: (len(own), own))
            for attributes, own in zip(found, values, strict=True):
                attributes[attribute] = by_name(own, names)
    return list(found)


def _values(column: Sequence[Any], names: Sequence[str] | None, where: str) -> list[str]:
    found = []
    for place, value in enumerate(column):
        if names is not None and isinstance(value, int) and 0 <= value < len(names):
            found.append(names[value])
        elif names is None and (isinstance(value, str) or (isinstance(value, int) and value >= 0)):
            found.append(str(value))
        else:
            raise InputError(f"{where}[{place}]", value, "a name, or a number from 0 that stands for one")
    return found
