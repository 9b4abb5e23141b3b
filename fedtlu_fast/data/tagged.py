"""The type of tagged sentences, and how they are divided into training and test parts and into sections."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fedtlu_fast.data.documents import SECTIONS
from fedtlu_fast.errors import InputError

logger = logging.getLogger("fedtlu_fast.data")
# fmt: off
UPOS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON",
    "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X",
)
# fmt: on
"""The universal part-of-speech tags of Universal Dependencies, version 2."""
UNKNOWN_GENRE = "unknown"
SECTION_SENTENCES = 20
"""Smallest section, in sentences. Sentences without documents are cut into sections, so that clients can hold
different ones."""


@dataclass(frozen=True)
class Sentence:
    """A sentence: words, a tag for each word, and the document and genre of the text."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    document: str
    genre: str = UNKNOWN_GENRE


@dataclass(frozen=True)
class Sentences:
    """Sentences with tags of one kind.

    Attributes:
        items: the sentences, in order.
        tags: the tags of a fixed set such as `UPOS`, which are labels even if they do not occur.
    """

    items: Sequence[Sentence]
    tags: tuple[str, ...] = ()


def cut_test(sentences: Sequence[Sentence], test_fraction: float) -> tuple[list[Sentence], list[Sentence]]:
    """Keeps the end of every document for the test; returns the training and the test sentences.

    The share holds for all documents together, not for each: the fractions of short documents add up, and a
    document gives its last sentence whenever the sum reaches a whole number.

    Args:
        sentences: the sentences, in order; the sentences of a document need not be consecutive.
        test_fraction: share of the sentences that is kept for the test, in (0, 1).
    """
    sizes = Counter(sentence.document for sentence in sentences)
    kept, seen = {}, 0
    for document, size in sizes.items():
        kept[document] = int((seen + size) * test_fraction) - int(seen * test_fraction)
        seen += size
    train: list[Sentence] = []
    test: list[Sentence] = []
    met = Counter[str]()
    for sentence in sentences:
        met[sentence.document] += 1
        ends = met[sentence.document] > sizes[sentence.document] - kept[sentence.document]
        (test if ends else train).append(sentence)
    return train, test


def with_words(sentences: Sequence[Sentence], source: str) -> list[Sentence]:
    """Leaves out the sentences of two words or more whose words are all underscores.

    Some treebanks are published with ``_`` in place of every word, because the texts are under copyright.

    Args:
        sentences: one sentence or more.
        source: the file or data set, for messages.

    Raises:
        InputError: most of the words are underscores.
    """
    words = Counter(not word.strip("_") for sentence in sentences for word in sentence.words)
    if words[True] > words[False] and words.total() > 1:
        raise InputError(
            source,
            f"_ in place of {words[True]:,} of {words.total():,} words",
            "a treebank with its words; they were taken out of this one before it was published",
            "Its README says how to put them back; or use another treebank.",
        )
    kept = [own for own in sentences if len(own.words) == 1 or any(word.strip("_") for word in own.words)]
    if len(kept) < len(sentences):
        logger.info(
            f"{source}: {len(sentences) - len(kept):,} sentences left out, whose words were taken out"
        )
    return kept


def section_names(name: str, count: int) -> list[str]:
    """Returns the name of the section of each of `count` consecutive sentences or lines."""
    size = max(SECTION_SENTENCES, -(-count // SECTIONS))
    width = len(str((count - 1) // size))
    return [f"{name}#{index // size:0{width}}" for index in range(count)]
