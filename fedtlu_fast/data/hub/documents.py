"""Text from data sets that `datasets` loads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedtlu_fast.data.documents import Document, Documents, sections
from fedtlu_fast.data.hub.location import Location
from fedtlu_fast.data.hub.parts import load_parts
from fedtlu_fast.data.prepared import is_prepared, joined, line_sections, lines_of
from fedtlu_fast.data.sources.source import Read
from fedtlu_fast.data.splits import announce
from fedtlu_fast.errors import InputError, shorten

TEXTS = ("text", "sentence", "content")
LABELS = ("label", "topic", "genre", "category")


def load_text_hub(location: Location) -> Read[Documents]:
    """Loads a data set with a column of text.

    The column is ``text``, ``sentence`` or ``content``, or the only column of strings. A document consists of
    the rows with the same ``label``, ``topic``, ``genre`` or ``category``, or, without such a column, of
    consecutive rows. A split ``validation`` is not read, because nothing is tuned on it.

    Args:
        location: the place of the data set.

    Raises:
        InputError: the data set cannot be loaded, has no split ``train``, or no text.
    """
    splits = load_parts(location)
    rows, name = splits.train, splits.source.removeprefix("hf:")
    texts = _texts(rows, name, "train")
    prepared = is_prepared(texts)
    label = next((key for key in LABELS if key in rows.column_names), None)
    if label is not None:
        parts: dict[str, list[str]] = {}
        for key, text in zip(rows[label], texts, strict=True):
            parts.setdefault(str(key), []).append(text)
        train = [Document(key, _join(parts[key], prepared)) for key in sorted(parts)]
    elif prepared:
        train = line_sections(name, [line for text in texts for line in lines_of(text)])
    else:
        train = sections(name, "\n\n".join(texts))
    test = None if splits.test is None else _join(_texts(splits.test, name, "test"), prepared)
    count = None if test is None else len(splits.test)
    origin = announce("rows", count, splits.tests, splits.unread, splits.trained)
    tests = None if test is None else Documents([Document("test", test)], prepared)
    return Read(Documents(train, prepared), tests, origin)


def _join(texts: Sequence[str], prepared: bool) -> str:
    return joined(line for text in texts for line in lines_of(text)) if prepared else "\n\n".join(texts)


def _texts(rows: Any, name: str, split: str) -> list[str]:
    column = _column(rows, name)
    texts = [text or "" for text in rows[column]]
    where = f"text in column {column}" + (f" of split {split}" if split != "train" else "")
    strange = next((text for text in texts if not isinstance(text, str)), None)
    if strange is not None:
        raise InputError("data.source", f"hf:{name}", f"{where}; it holds {shorten(strange)}")
    if not any(text.strip() for text in texts):
        raise InputError("data.source", f"hf:{name}", f"{where}; there is none")
    return texts


def _column(rows: Any, name: str) -> str:
    for column in TEXTS:
        if column in rows.column_names:
            return column
    strings = [key for key, feature in rows.features.items() if getattr(feature, "dtype", "") == "string"]
    if len(strings) == 1:
        return str(strings[0])
    raise InputError(
        "data.source", f"hf:{name}", f"a column named text; it has {', '.join(rows.column_names)}"
    )
