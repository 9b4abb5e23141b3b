"""Where text comes from: documents, each with a name that non-IID partitioners can go by."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtlu_fast.data.hub import load_hub
from fedtlu_fast.errors import InputError, shorten

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
            of them (one document a file; hidden ones are left out). ``hf:NAME[:CONFIG][@REVISION]``: a data
            set with a text column through `datasets`, from the hub or a local folder, one document per
            label or else per section.

    Raises:
        InputError: an unknown source; a path that is missing, empty or not UTF-8; a data set that cannot
            be loaded or has no text.
    """
    kind, _, rest = source.partition(":")
    if source == "pydoc":
        return _pydoc()
    if kind == "text" and rest:
        return _text(source, rest)
    if kind == "hf" and rest:
        return _hub(rest)
    raise InputError("data.source", source, "pydoc, text:PATH or hf:NAME")


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
        documents = _sections(path.name, read_text(path))
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


def _sections(name: str, text: str) -> list[Document]:
    """Cuts a text at blank lines into sections of about equal length."""
    paragraphs = [part for part in text.split("\n\n") if part.strip()]
    size = max(SECTION_CHARACTERS, -(-sum(map(len, paragraphs)) // SECTIONS))
    sections: list[list[str]] = [[]]
    length = 0
    for paragraph in paragraphs:
        if length >= size:
            sections.append([])
            length = 0
        sections[-1].append(paragraph)
        length += len(paragraph)
    width = len(str(len(sections)))
    return [
        Document(f"{name}#{index:0{width}}", "\n\n".join(section))
        for index, section in enumerate(sections)
        if section
    ]


def _hub(location: str) -> list[Document]:
    loaded, name = load_hub(location, split="train"), location.partition("@")[0]
    column = _text_column(loaded, name)
    texts = [text or "" for text in loaded[column]]
    strange = next((text for text in texts if not isinstance(text, str)), None)
    if strange is not None:
        raise InputError("data.source", f"hf:{name}", f"text in column {column}; it holds {shorten(strange)}")
    if not any(text.strip() for text in texts):
        raise InputError("data.source", f"hf:{name}", f"text in column {column}; there is none")
    label = next((key for key in ("label", "topic", "genre", "category") if key in loaded.column_names), None)
    if label is None:
        return _sections(name, "\n\n".join(texts))
    parts: dict[str, list[str]] = {}
    for key, text in zip(loaded[label], texts, strict=True):
        parts.setdefault(str(key), []).append(text)
    return [Document(key, "\n\n".join(parts[key])) for key in sorted(parts)]


def _text_column(loaded: Any, name: str) -> str:
    for column in ("text", "sentence", "content"):
        if column in loaded.column_names:
            return column
    strings = [key for key, feature in loaded.features.items() if getattr(feature, "dtype", "") == "string"]
    if len(strings) == 1:
        return str(strings[0])
    raise InputError(
        "data.source", f"hf:{name}", f"a column named text; it has {', '.join(loaded.column_names)}"
    )
