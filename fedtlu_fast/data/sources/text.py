"""Reads running text from the user's own files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedtlu_fast.data.documents import Document, Documents, sections
from fedtlu_fast.data.reading import UNPACKED_LIMIT, UnpackedLimit, as_path, entries, read_text
from fedtlu_fast.data.sources.source import DocumentSource, PathSource, Read
from fedtlu_fast.data.splits import announce, divide, parse
from fedtlu_fast.errors import InputError, listed
from fedtlu_fast.parts import part


@part
class TextFiles(PathSource, DocumentSource):
    """Running text in files.

    Attributes:
        path: a UTF-8 file, which is cut into sections at blank lines, or a directory of such files, each of
            which is a document; files may be compressed. Names say which entries are the test (see `splits`).
        unpacked_limit: largest number of bytes to which a compressed file may unpack.
    """

    path: str
    unpacked_limit: UnpackedLimit = UNPACKED_LIMIT

    def documents(self) -> Read[Documents]:
        """See `DocumentSource`.

        Raises:
            InputError: a file is missing, empty or not UTF-8.
        """
        source, limit = str(self), self.unpacked_limit
        path = as_path(source, self.path)
        if path.is_dir():
            return _directory(source, path, limit)
        text = read_text(path, limit)
        train = _with_text(source, sections(path.name, text) if text.strip() else [])
        return Read(Documents(train), None, announce("sections", None, train=[path.name]))


def _directory(source: str, path: Path, limit: int) -> Read[Documents]:
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
    return Read(Documents(train), Documents(test) if test else None, origin)


@dataclass(frozen=True)
class Files:
    """The files of a directory by part.

    Attributes:
        train: training files.
        test: test files.
        tests: names of the entries that hold the test files.
        unread: names of the entries that are not read.
    """

    train: list[Path]
    test: list[Path]
    tests: list[str]
    unread: list[str]


def _folder(root: Path, folder: Path, source: str, part: str, found: Files) -> None:
    """Adds the files of a folder, and of the folders in it, to `found`.

    Entries are divided by their names (see `splits`), except inside a folder that is a part itself. A file
    whose name says no part is for training.
    """
    # Links to folders are not followed, because they may lead back to a folder above.
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
