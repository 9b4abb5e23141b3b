"""Running text as documents; partitioners can deal samples by the documents' names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedtlu_fast.data.words import boundary

SECTIONS = 64
"""Most sections into which a single text file is cut, so that clients can hold different ones."""
SECTION_CHARACTERS = 4000
"""Shortest section, in characters: its beginning has to fill training samples, and its end test samples."""


@dataclass(frozen=True)
class Document:
    """A text with a name: a topic, a file, a section, or a labelled part of a data set."""

    name: str
    text: str


@dataclass(frozen=True)
class Documents:
    """Documents of one kind.

    Attributes:
        items: the documents, in a fixed order.
        prepared: whether each line is a sentence with words between white space, and rare words were replaced
            by ``<unk>``; then `LineTokenizer` reads them.
    """

    items: list[Document]
    prepared: bool = False


def sections(name: str, text: str) -> list[Document]:
    """Cuts a text at blank lines into sections of about equal length; their names begin with `name`.

    A paragraph that is longer than a section is cut inside (see `boundary`).
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
    """Cuts a paragraph into pieces of at least `size` characters; the last may be twice as long."""
    start = 0
    while len(paragraph) - start >= 2 * size:
        cut = boundary(paragraph, start + size)
        yield paragraph[start:cut]
        start = cut
    if start < len(paragraph):
        yield paragraph[start:]
