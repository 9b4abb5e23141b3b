"""Labels and other attributes from data sets that `datasets` loads."""

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
"""Columns that may hold the label; the first that is there does."""
MORE = ("coarse_label", "domain", "language")
"""Columns that become attributes."""


HIDDEN = -1
"""In place of a label that the publisher of a test keeps secret, or on which annotators did not agree."""


def load_splits(location: Location, what: str) -> tuple[list[Any], Origin]:
    """The rows of a data set to train on, those to test on where it has some with labels, and their origin.

    Rows of a column of named labels that have none (-1, or nothing) are left out.

    Args:
        location: of the data set.
        what: the samples are, such as "texts".

    Raises:
        InputError: see `load_parts`; or no row to train on has a label.
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
    """The rows that have a label; None where no row has one, but a table without such a column as it is."""
    column = next((own for own in LABELS if own in rows.column_names), None)
    if column is None:
        return None if part == "test" else rows
    values = list(rows[column])
    kept = [place for place, value in enumerate(values) if value is not None and value != HIDDEN]
    # Beside labels that are texts, `datasets` makes a text of the number.
    if not kept or set(values) == {str(HIDDEN)}:
        return None
    # Without names, -1 may be a label like any other: the message of `_values` asks.
    if len(kept) == len(values) or getattr(rows.features[column], "names", None) is None:
        return rows
    logger.info(f"{part}: {len(values) - len(kept):,} of {len(values):,} left out, which have no label")
    return rows.select(kept)


def read_attributes(splits: Sequence[Any], location: Location) -> list[Attributes]:
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
            raise InputError(
                f"{where}[{place}]",
                value,
                "a name, or a number from 0 that stands for one",
                "Where -1 is a label, give the labels names; where it stands for none, take the rows out."
                if value == HIDDEN
                else "",
            )
    return found
