"""Tagged sentences: what a tagging learns from, and how they are divided."""

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
"""Sentences without a document are cut into sections of no fewer than this, so that clients can differ."""


@dataclass(frozen=True)
class Sentence:
    """Words, a tag for each, and where they are from."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    document: str
    genre: str = UNKNOWN_GENRE


@dataclass(frozen=True)
class Sentences:
    """Sentences with tags of one kind.

    Attributes:
        items: in order.
        tags: labels whether they occur or not, such as `UPOS`.
    """

    items: Sequence[Sentence]
    tags: tuple[str, ...] = ()


def cut_test(sentences: Sequence[Sentence], test_fraction: float) -> tuple[list[Sentence], list[Sentence]]:
    """Keeps the end of every document for the test; gives the sentences to train on and those to test on.

    The share is right for the whole, not for each document: one of a few sentences gives none, or now and
    then its last, as the shares of the documents before it add up.

    Args:
        sentences: in order; those of a document need not follow each other.
        test_fraction: share that is kept.
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
    """The sentences whose words are there: those of two words or more that are all underscores are left out.

    Some treebanks are published without the words, for the rights to them; ``_`` stands for each.

    Args:
        sentences: one or more.
        source: the file or data set, for messages.

    Raises:
        InputError: most of the words were taken out.
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
    """For each of `count` sentences or lines in a row, the name of the section that it falls in."""
    size = max(SECTION_SENTENCES, -(-count // SECTIONS))
    width = len(str((count - 1) // size))
    return [f"{name}#{index // size:0{width}}" for index in range(count)]
