"""Tagged sentences from data sets that `datasets` loads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from fedtlu_fast.data.hub.location import Location
from fedtlu_fast.data.hub.parts import load_parts
from fedtlu_fast.data.sources.source import Read
from fedtlu_fast.data.splits import announce
from fedtlu_fast.data.tagged import UPOS, Sentence, Sentences, section_names, with_words
from fedtlu_fast.errors import InputError, shorten

WORDS = ("tokens", "words")
TAGS = ("upos", "upos_tags", "pos_tags")
NAMES = ("idx", "sent_id")
"""Columns that may hold a sentence's name, its document's name before the last hyphen."""
NO_TAG = "_"
NO_TAGS = (None, -1, "-1", "", NO_TAG)
"""Values in place of the tags of a test whose publisher keeps them secret."""


def load_tagged_hub(location: Location) -> Read[Sentences]:
    """Loads a data set in which each row is a sentence, with a column of words and a column of tags.

    The words are in ``tokens`` or ``words``, the tags in ``upos``, ``upos_tags`` or ``pos_tags``, as strings
    or as numbers with names (`ClassLabel`). Words tagged ``_`` are left out, because some builds of treebanks
    list multiword tokens before their words and mark them by this tag only. A sentence's document is taken
    from a column ``idx`` or ``sent_id`` with names such as ``weblog-some.site-0001``; without them,
    consecutive sentences form sections. A split ``validation`` or ``dev`` is not read.

    Args:
        location: the place of the data set.

    Raises:
        InputError: the data set cannot be loaded, or has no words or no tags.
    """
    parts = load_parts(location)
    name = parts.source.removeprefix("hf:")
    train = _sentences(parts.train, name, "train")
    known = UPOS if _column(parts.train, TAGS, name).startswith("upos") else ()
    hidden = parts.test is not None and _hidden(parts.test)
    unread = [*(f"{own} (its tags are hidden)" for own in parts.tests if hidden), *parts.unread]
    test = None if parts.test is None or hidden else _sentences(parts.test, name, "test")
    count = None if test is None else len(test)
    origin = announce("sentences", count, parts.tests, unread, parts.trained)
    return Read(Sentences(train, known), None if test is None else Sentences(test, known), origin)


def _hidden(rows: Any) -> bool:
    """Tells whether no row has a tag: there is no column of tags, or it holds only `NO_TAGS`."""
    column = next((own for own in TAGS if own in rows.column_names), None)
    return column is None or all(tag in NO_TAGS for tags in rows[column] for tag in tags or ())


def _sentences(rows: Any, name: str, split: str) -> list[Sentence]:
    words, tags = _column(rows, WORDS, name), _column(rows, TAGS, name)
    labels = _labels(rows.features[tags])
    sentences, places = [], []
    for place, (own_words, own_tags) in enumerate(zip(rows[words], rows[tags], strict=True)):
        where = f"hf:{name}, {split}[{place}]"
        tagged = list(_tagged(own_words, own_tags, labels, where))
        if tagged:
            chosen, given = zip(*tagged, strict=True)
            sentences.append(Sentence(chosen, given, ""))
            places.append(place)
    if not sentences:
        raise InputError(f"hf:{name}, {split}", f"no tag but {NO_TAG} in column {tags}", "words with tags")
    documents = _documents(rows, name, places)
    found = [replace(own, document=document) for own, document in zip(sentences, documents, strict=True)]
    return with_words(found, f"hf:{name}, {split}")


def _tagged(words: Any, tags: Any, labels: Sequence[str] | None, where: str) -> Iterator[tuple[str, str]]:
    if not isinstance(words, list) or not isinstance(tags, list) or len(words) != len(tags):
        raise InputError(where, f"{shorten(words)} and {shorten(tags)}", "two lists of one length")
    for word, tag in zip(words, tags, strict=True):
        if labels is not None and isinstance(tag, int) and 0 <= tag < len(labels):
            tag = labels[tag]
        if not isinstance(tag, str) or not tag.strip():
            raise InputError(
                where, tag, f"the name of a tag, or its number where they have names, for {word}"
            )
        if not isinstance(word, str) or not word.strip():
            raise InputError(where, word, f"a word, tagged {tag}")
        if tag != NO_TAG:
            yield word, tag


def _labels(feature: Any) -> Sequence[str] | None:
    """Returns the names of the numbers in a column, or None if it has no names."""
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    names: Sequence[str] | None = getattr(inner, "names", None)
    return names


def _documents(rows: Any, name: str, places: Sequence[int]) -> list[str]:
    """Returns the documents of the sentences at these places."""
    column = next((key for key in NAMES if key in rows.column_names), None)
    if column is not None:
        ids = list(rows[column])
        if all(isinstance(own, str) and own.rpartition("-")[0] for own in ids):
            return [ids[place].rpartition("-")[0] for place in places]
    return section_names(name, len(places))


def _column(rows: Any, candidates: Sequence[str], name: str) -> str:
    for column in candidates:
        if column in rows.column_names:
            return column
    raise InputError(
        "data.source",
        f"hf:{name}",
        f"a column named {' or '.join(candidates)}; it has {', '.join(rows.column_names)}",
    )
