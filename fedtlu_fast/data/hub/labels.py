"""Reads labels and other attributes of data sets that `datasets` loads."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fedtlu_fast.data.hub.location import Location
from fedtlu_fast.data.hub.parts import load_parts
from fedtlu_fast.data.labelled import Attributes, by_name
from fedtlu_fast.data.splits import Origin, announce
from fedtlu_fast.errors import InputError

logger = logging.getLogger("fedtlu_fast.data")
LABELS = ("label", "labels", "fine_label", "category", "news_category")
"""Columns that may hold the label; the first one that exists is taken."""
MORE = ("coarse_label", "domain", "language")
"""Columns that become attributes."""


HIDDEN = -1
"""The value in place of a label that is kept secret, or on which annotators did not agree."""


def load_splits(location: Location, what: str) -> tuple[list[Any], Origin]:
    """Loads the training rows of a data set and, if they have labels, its test rows.

    If the labels have names, rows without a label (-1 or missing) are left out.

    Args:
        location: the place of the data set.
        what: the kind of the samples, such as "texts", for messages.

    Returns:
        One or two tables (training rows, test rows), and the splits that they are from.

    Raises:
        InputError: see `load_parts`; or no training row has a label.
    """
    parts = load_parts(location)
    train = _with_labels(parts.train, parts.source, "train")
    test = None if parts.test is None else _with_labels(parts.test, parts.source, "test")
    if train is None:
        expected = "labels to train on; those of its split train are hidden (-1) or missing"
        raise InputError("data.source", parts.source, expected, "Use another data set.")
    hidden = parts.tests if test is None else ()
    unread = [*(f"{name} (its labels are hidden)" for name in hidden), *parts.unread]
    origin = announce(what, None if test is None else len(test), parts.tests, unread, parts.trained)
    return [train] if test is None else [train, test], origin


def _with_labels(rows: Any, source: str, part: str) -> Any:
    """Returns the rows that have a label, or None if no row has one.

    Training rows without a column of labels are returned as they are: `read_attributes` refuses them.
    """
    column = next((own for own in LABELS if own in rows.column_names), None)
    if column is None:
        return None if part == "test" else rows
    values = list(rows[column])
    kept = [place for place, value in enumerate(values) if value is not None and value != HIDDEN]
    # In a column of texts, `datasets` turns the number -1 into text.
    if not kept or set(values) == {str(HIDDEN)}:
        return None
    # Without names, -1 may be an ordinary label: `_values` refuses it with a message that asks the user.
    if len(kept) == len(values) or getattr(rows.features[column], "names", None) is None:
        return rows
    logger.info(f"{part}: {len(values) - len(kept):,} of {len(values):,} left out, which have no label")
    return rows.select(kept)


def read_attributes(splits: Sequence[Any], location: Location) -> list[Attributes]:
    """Reads the attribute ``label`` of each split, and the other attributes (`MORE`) that all splits have.

    Labels are strings, or whole numbers with names (`ClassLabel`) or without. An attribute has the same names
    in all splits.

    Args:
        splits: the tables of one data set, the training rows first.
        location: the place of the data set, for messages.

    Raises:
        InputError: there are no labels, or some are of another kind or missing.
    """
    first = splits[0]
    label = next((column for column in LABELS if column in first.column_names), None)
    name = location.source
    if label is None:
        expected = f"a column {' or '.join(LABELS)}; it has {', '.join(first.column_names)}"
        raise InputError("data.source", name, expected)
    found: list[dict[str, Any]] = [{} for _ in splits]
    for attribute, column in [("label", label), *((more, more) for more in MORE)]:
        if all(column in split.column_names for split in splits):
            names = getattr(first.features[column], "names", None)
            values = [
                _values(split[column], names, f"{name}, split {part}, column {column}")
                for part, split in zip(("train", "test"), splits, strict=False)
            ]
            if names is None:
                # Sorted by length first, so that numbers are in the order of their size.
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
            raise InputError(
                f"{where}[{place}]",
                value,
                "a name, or a number from 0 that stands for one",
                "Where -1 is a label, give the labels names; where it stands for none, take the rows out."
                if value == HIDDEN
                else "",
            )
    return found
