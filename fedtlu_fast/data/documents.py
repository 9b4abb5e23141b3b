"""Where text comes from: documents, each with a name that non-IID partitioners can go by."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedtlu_fast.data.reading import UNPACKED_LIMIT, as_path, entries, read_text
from fedtlu_fast.data.splits import Origin, announce, divide, parse
from fedtlu_fast.data.words import boundary
from fedtlu_fast.errors import InputError, listed

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
class Texts:
    """Documents to train on; those to test on, None where there is no test of its own; and their origin."""

    train: list[Document]
    test: list[Document] | None
    origin: Origin


EMBEDDED = {"pydoc": "pydoc topics", "topics": "pydoc topics", "pycode": "standard library"}
"""Sources that are part of Python, and which part: other versions have other texts."""


def made_with(source: str) -> str:
    """What embedded data are made with, such as "Python 3.11.7's pydoc topics"; empty for other sources."""
    part = EMBEDDED.get(source)
    return f"Python {platform.python_version()}'s {part}" if part is not None else ""


def load_documents(source: str, limit: int = UNPACKED_LIMIT) -> list[Document]:
    """The documents of a source to train on; see `load_parts`."""
    return load_parts(source, limit).train


def load_parts(source: str, limit: int = UNPACKED_LIMIT) -> Texts:
    """Reads the documents of a source, in a fixed order.

    Args:
        source: ``pydoc``: the language reference that CPython ships (79 topics in 3.11, about 465,000
            characters). ``text:PATH``: a UTF-8 file (cut into sections at blank lines) or a directory of
            them (one document a file; see `_folder`). Files may be compressed.
        limit: see `read_bytes`.

    Raises:
        InputError: an unknown source; a path that is missing, empty or not UTF-8.
    """
    kind, _, rest = source.partition(":")
    if source == "pydoc":
        return Texts(pydoc_documents(), None, announce("documents", None))
    if kind == "text" and rest:
        return _text(source, rest, limit)
    raise InputError("data.source", source, "pydoc, text:PATH, ptb:DIR or hf:NAME")


def pydoc_documents() -> list[Document]:
    """The topics of Python's reference, by name."""
    # Imported by name: type checkers have no stubs for this part of the standard library.
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    return [Document(name, topics[name]) for name in sorted(topics)]


def _text(source: str, location: str, limit: int) -> Texts:
    path = as_path(source, location)
    if not path.is_dir():
        text = read_text(path, limit)
        train = _with_text(source, sections(path.name, text) if text.strip() else [])
        return Texts(train, None, announce("sections", None, train=[path.name]))
    found = Files([], [], [], [])
    try:
        _folder(path, path, source, "train", found)
    except OSError as error:
        raise InputError("data.source", source, f"a path that can be read; {error}") from None

    def documents(files: Sequence[Path]) -> list[Document]:
        read = (Document(file.relative_to(path).as_posix(), read_text(file, limit)) for file in files)
        return [document for document in read if document.text.strip()]

    test = documents(found.test)
    train = _with_text(source, documents(found.train), [*found.tests, *found.unread])
    names = [file.relative_to(path).as_posix() for file in found.train]
    origin = announce("documents", len(test) if test else None, found.tests, found.unread, names)
    return Texts(train, test or None, origin)


@dataclass(frozen=True)
class Files:
    """Files to train on and to test on, the entries that hold the test, and entries that are not read."""

    train: list[Path]
    test: list[Path]
    tests: list[str]
    unread: list[str]


def _folder(root: Path, folder: Path, source: str, part: str, found: Files) -> None:
    """Adds the files of a folder and of the folders in it, by part.

    The entries of every folder are divided by their names (see `splits`), but within a part's own folder.
    Documents have all kinds of names: one that says nothing is for training.
    """
    # Links to folders are not followed: they may lead back.
    shown = (item for item in entries(folder) if item.is_file() or (item.is_dir() and not item.is_symlink()))
    own = {item.name: item for item in shown}
    divided = divide(list(own), source, free=True) if part == "train" else None
    for name, item in own.items():
        said, place = part, item.relative_to(root).as_posix()
        if divided is not None and name in divided.validation:
            found.unread.append(place)
            continue
        if divided is not None and name in divided.test:
            found.tests.append(place)
            said = "test"
        if item.is_dir():
            named = divided is not None and parse(name).part == "train" and name in divided.train
            _folder(root, item, source, "whole" if named and said == "train" else said, found)
        else:
            (found.test if said == "test" else found.train).append(item)


def _with_text(source: str, documents: list[Document], beside: Sequence[str] = ()) -> list[Document]:
    if not documents:
        expected = f"text to train on beside {listed(beside)}" if beside else "text; there is none in it"
        raise InputError("data.source", source, expected)
    return documents


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
