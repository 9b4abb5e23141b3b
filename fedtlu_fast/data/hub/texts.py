"""Labelled texts from data sets that `datasets` loads."""

from __future__ import annotations

from typing import Any

from fedtlu_fast.data.hub.labels import load_splits, read_attributes
from fedtlu_fast.data.hub.location import Location
from fedtlu_fast.data.sources.source import Read
from fedtlu_fast.data.text_set import TEXTS, TITLES, TextSet
from fedtlu_fast.errors import InputError


def load_hub_texts(location: Location) -> Read[TextSet]:
    """Loads a data set with a column of texts (see `TEXTS`, `TITLES`) and a column of labels.

    Args:
        location: the place of the data set. Its splits are divided by their names (see `splits`).

    Raises:
        InputError: the data set cannot be loaded, or has no texts or no labels (see `read_attributes`).
    """
    splits, origin = load_splits(location, "texts")
    attributes = read_attributes(splits, location)
    sets = [TextSet(_texts(split, location), own) for split, own in zip(splits, attributes, strict=True)]
    return Read(sets[0], sets[1] if len(sets) > 1 else None, origin)


def _texts(split: Any, location: Location) -> list[str]:
    name = location.source
    column = next((own for own in TEXTS if own in split.column_names), None)
    if column is None:
        expected = f"a column {' or '.join(TEXTS)}; it has {', '.join(split.column_names)}"
        raise InputError("data.source", name, expected)
    title = next((own for own in TITLES if own in split.column_names), None)
    titles = split[title] if title is not None else [None] * len(split)
    found = []
    for place, (text, heading) in enumerate(zip(split[column], titles, strict=True)):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{name}, {split.split}[{place}]", text, f"a text in column {column}")
        found.append(f"{heading or ''} {text}".strip())
    return found
