"""Where text comes from: documents, each with a name that non-IID partitioners can go by."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from fedtlu_fast.errors import InputError

SECTIONS = 64
"""A single text file is cut into at most this many sections, so that clients can differ."""
SECTION_CHARACTERS = 4000
"""But none shorter than this: both its beginning and its end must fill samples."""


@dataclass(frozen=True)
class Document:
    """One natural source of text: a topic, a file, a section, a labelled part of a data set."""

    name: str
    text: str


def load_documents(source: str) -> list[Document]:
    """Reads the documents of a source, in a fixed order.

    Args:
        source: ``pydoc``: the language reference that CPython ships (79 topics in 3.11, about 465,000
            characters). ``text:PATH``: a UTF-8 file (cut into sections at blank lines) or a directory
            of them (one document a file; hidden ones are left out).

    Raises:
        InputError: an unknown source; a path that is missing, empty or not UTF-8.
    """
    kind, _, rest = source.partition(":")
    if source == "pydoc":
        return _pydoc()
    if kind == "text" and rest:
        return _text(source, rest)
    raise InputError("data.source", source, "pydoc, text:PATH, ptb:DIR or hf:NAME")


def _pydoc() -> list[Document]:
    # Imported by name: type checkers have no stubs for this part of the standard library.
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    return [Document(name, topics[name]) for name in sorted(topics)]


def _text(source: str, location: str) -> list[Document]:
    try:
        path = Path(location).expanduser()
        folder, exists = path.is_dir(), path.exists()
        files = sorted(item for item in path.rglob("*") if item.is_file()) if folder else []
    except (OSError, RuntimeError) as error:  # a name too long, a folder that is closed, no such user
        raise InputError("data.source", source, f"a path that can be read; {error}") from None
    if not exists:
        raise InputError("data.source", source, "a file or a directory that exists")
    if folder:
        names = [item.relative_to(path) for item in files]
        shown = [name for name in names if not any(part.startswith(".") for part in name.parts)]
        documents = [Document(name.as_posix(), read_text(path / name)) for name in shown]
        documents = [document for document in documents if document.text.strip()]
    else:
        documents = sections(path.name, read_text(path))
    if not documents:
        raise InputError("data.source", source, "text; there is none in it")
    return documents


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            "data.source",
            str(path),
            f"UTF-8 text; byte {error.start} is {error.object[error.start]:#04x}",
            "Convert it (iconv -t utf-8) or move it out of the directory.",
        ) from None
    except OSError as error:
        raise InputError("data.source", str(path), f"a readable file; {error.strerror}") from None


def sections(name: str, text: str) -> list[Document]:
    """Cuts a text at blank lines into sections of about equal length, named after the whole."""
    paragraphs = [part for part in text.split("\n\n") if part.strip()]
    size = max(SECTION_CHARACTERS, -(-sum(map(len, paragraphs)) // SECTIONS))
    found: list[list[str]] = [[]]
    length = 0
    for paragraph in paragraphs:
        if length >= size:
            found.append([])
            length = 0
        found[-1].append(paragraph)
        length += len(paragraph)
    width = len(str(len(found)))
    return [
        Document(f"{name}#{index:0{width}}", "\n\n".join(section))
        for index, section in enumerate(found)
        if section
    ]
