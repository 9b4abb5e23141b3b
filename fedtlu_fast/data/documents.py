"""Running text: documents, each with a name that non-IID partitioners can go by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedtlu_fast.data.words import boundary

SECTIONS = 64
"""A single text file is cut into at most this many sections, so that clients can differ."""
SECTION_CHARACTERS = 4000
"""But none shorter than this: both its beginning and its end must fill samples."""


@dataclass(frozen=True)
class Document:
    """One natural source of text: a topic, a file, a section, a labelled part of a data set."""

    name: str
    text: str


@dataclass(frozen=True)
class Documents:
    """Documents of one kind.

    Attributes:
        items: in a fixed order.
        prepared: whether the words stand between white space, a line for a sentence, and rare words are
            ``<unk>`` already, so that `LineTokenizer` reads them.
    """

    items: list[Document]
    prepared: bool = False


def sections(name: str, text: str) -> list[Document]:
    """Cuts a text at blank lines into sections of about equal length, named after the whole.

    A paragraph that is longer than a section is cut within (see `boundary`).
    """
    paragraphs = [part for part in text.split("\n\n") if part.strip()]
    size = max(SECTION_CHARACTERS, -(-sum(map(len, paragraphs)) // SECTIONS))
    found: list[list[str]] = [[]]
    length = 0
    for paragraph in paragraphs:
        for piece in _pieces(paragraph, size):
            if length >= size:
                found.append([])
                length = 0
            found[-1].append(piece)
            length += len(piece)
    width = len(str(len(found)))
    return [
        Document(f"{name}#{index:0{width}}", "\n\n".join(section))
        for index, section in enumerate(found)
        if section
    ]


def _pieces(paragraph: str, size: int) -> Iterator[str]:
    """A paragraph in pieces of `size` characters or a few more, the last of up to twice as many."""
    start = 0
    while len(paragraph) - start >= 2 * size:
        cut = boundary(paragraph, start + size)
        yield paragraph[start:cut]
        start = cut
    if start < len(paragraph):
        yield paragraph[start:]
