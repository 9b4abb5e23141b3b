"""Reads labelled texts from a file for each domain, such as each language in XGLUE's news classification.

Files are named ``DOMAIN.ENDING``, or ``DOMAIN.train.ENDING`` and ``DOMAIN.test.ENDING``, or
``train/DOMAIN.ENDING``. Names say the part by the rule of `splits`; the validation part is not read. ``.csv``
and ``.tsv`` files begin with a line of column names, and ``.jsonl`` files have an object on each line; a
compressed file has a second ending. `LABELS`, `TEXTS` and `TITLES` are the names of the columns, in any case.
The separator of a ``.csv`` file is the first of comma, semicolon and tab that yields a column of labels and a
column of texts. A ``.tsv`` file has no quotation marks.
"""

from __future__ import annotations

import csv
import json
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtlu_fast.data.hub.labels import LABELS
from fedtlu_fast.data.labelled import by_name
from fedtlu_fast.data.reading import (
    UNPACKED_LIMIT,
    UnpackedLimit,
    as_path,
    entries,
    lines_of_text,
    read_text,
    unpacked_suffix,
)
from fedtlu_fast.data.sources.source import PathSource, Read, TextSource
from fedtlu_fast.data.splits import announce, divide, parse
from fedtlu_fast.data.text_set import TEXTS, TITLES, TextSet
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part

ENDINGS = (".csv", ".jsonl", ".tsv")
SEPARATORS = (",", ";", "\t")
HIDDEN = "-1"
"""The value in place of a test's label whose publisher keeps it secret."""
_FIELD_LIMIT = threading.Lock()
"""Held while the field limit of Python's `csv`, which applies to the whole process, is raised."""


@dataclass(frozen=True)
class Text:
    """A text with its label (empty if the table has none) and the file's domain."""

    text: str
    label: str
    domain: str


@dataclass(frozen=True)
class Files:
    """Training files and test files, each with its domain, and the names of entries that are not read."""

    train: list[tuple[Path, str]]
    test: list[tuple[Path, str]]
    unread: list[str]


@part
class LabelledTexts(PathSource, TextSource):
    """Labelled texts in files by domain; if there are several domains, they are an attribute.

    Attributes:
        path: a directory, in which hidden files and other endings are left out, or one file.
        unpacked_limit: largest number of bytes to which a compressed file may unpack.
    """

    path: str
    unpacked_limit: UnpackedLimit = UNPACKED_LIMIT

    def texts(self) -> Read[TextSet]:
        """See `TextSource`.

        Raises:
            InputError: a file is missing, cannot be read, or breaks its format (the message names the line).
        """
        source, limit = str(self), self.unpacked_limit
        path = as_path(source, self.path)
        if path.is_dir():
            try:
                files = _files(path, source)
            except OSError as error:
                raise InputError("data.source", source, f"a path that can be read; {error}") from None
        else:
            files = Files([(path, "")] if unpacked_suffix(path) in ENDINGS else [], [], [])
        train = [text for file, domain in files.train for text in _texts(file, domain, limit)]
        if not train:
            raise InputError("data.source", source, f"a file with texts to train on ({', '.join(ENDINGS)})")
        labelled = any(text.label == HIDDEN for text in train)
        test, tests, unread = [], [], list(files.unread)
        for file, domain in files.test:
            texts, name = list(_texts(file, domain, limit, test=True)), file.relative_to(path).as_posix()
            if all(text.label == "" or (text.label == HIDDEN and not labelled) for text in texts):
                unread.append(f"{name} (without labels)")
            else:
                test += texts
                tests.append(name)
        names = [file.name if file == path else file.relative_to(path).as_posix() for file, _ in files.train]
        origin = announce("texts", len(test) if test else None, tests, unread, names)
        both = [*train, *test]
        labels, domains = (sorted({getattr(own, name) for own in both}) for name in ("label", "domain"))
        sets = [_text_set(own, labels, domains) for own in (train, test)]
        return Read(sets[0], sets[1] if test else None, origin)


def _files(root: Path, source: str) -> Files:
    """Finds the tables of a directory and of the folders in it.

    Folders that are parts are always read. Other folders are domains; they are read if there is no table
    beside them.
    """
    there = entries(root)
    own = [item for item in there if _is_table(item) or _holds_tables(item)]
    flat = any(_is_table(item) for item in own)
    read = {item.name: item for item in own if _is_table(item) or not flat or parse(item.name).part}
    divided = divide(list(read), source)
    # A part in another format, such as test.parquet, is listed as not read.
    foreign = [item.name for item in there if item not in own and item.is_file() and parse(item.name).part]
    found = Files([], [], [*(item.name for item in own if item.name not in read), *foreign])
    found.unread.extend((*divided.validation, *divided.others))
    for names, files in ((divided.train, found.train), (divided.test, found.test)):
        for name in names:
            item, said = read[name], parse(name)
            if _is_table(item):
                files.append((item, said.name))
            elif said.part:
                inside = filter(_is_table, entries(item))
                files += [(file, _joined(said.name, parse(file.name).name)) for file in inside]
            else:
                inner = _files(item, source)
                found.train.extend((file, _joined(name, domain)) for file, domain in inner.train)
                found.test.extend((file, _joined(name, domain)) for file, domain in inner.test)
                found.unread.extend(f"{name}/{entry}" for entry in inner.unread)
    return found


def _is_table(item: Path) -> bool:
    return unpacked_suffix(item) in ENDINGS and item.is_file()


def _holds_tables(item: Path) -> bool:
    # A link may lead back to one of the folders above it.
    if not item.is_dir() or (item.is_symlink() and any(map(item.samefile, item.parents))):
        return False
    return any(_is_table(inner) or _holds_tables(inner) for inner in entries(item))


def _joined(*names: str) -> str:
    return "/".join(filter(None, names))


def _text_set(texts: Sequence[Text], labels: Sequence[str], domains: Sequence[str]) -> TextSet:
    attributes = {"label": by_name([own.label for own in texts], labels)}
    if len(domains) > 1:
        attributes["domain"] = by_name([own.domain for own in texts], domains)
    return TextSet([own.text for own in texts], attributes)


def _texts(file: Path, domain: str, limit: int, *, test: bool = False) -> Iterator[Text]:
    content = read_text(file, limit)
    rows = _objects(file, content) if unpacked_suffix(file) == ".jsonl" else _table(file, content)
    for where, row in rows:
        # A test with secret labels may have no column of labels.
        hidden = test and not any(name in row for name in LABELS)
        label, text = "" if hidden else _value(where, row, LABELS), _value(where, row, TEXTS)
        title = next((str(row[name]) for name in TITLES if row.get(name)), "")
        yield Text(_characters(f"{title} {text}".strip()), label, domain)


def _characters(text: str) -> str:
    """Replaces single surrogates, which JSON can contain, by the replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _table(file: Path, content: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    rows = _rows(file, content)
    columns = [name.strip().lower() for name in rows[0][1]] if rows else []
    for number, values in rows[1:]:
        where = f"{file}:{number}"
        if len(values) != len(columns):
            expected = f"{len(columns)} columns, as in the first line; there are {len(values)}"
            raise InputError(where, values[0], expected)
        yield where, dict(zip(columns, values, strict=True))


def _rows(file: Path, content: str) -> list[tuple[int, list[str]]]:
    """Returns the rows of a table that are not blank, each with the number of its last line."""
    tabs = unpacked_suffix(file) == ".tsv"
    style: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"strict": True}
    if not tabs:
        style["delimiter"] = _separator(next(lines_of_text(content), ""))
    reader = csv.reader(lines_of_text(content), **style)
    with _FIELD_LIMIT:
        before = csv.field_size_limit(sys.maxsize)
        try:
            return [(reader.line_num, values) for values in reader if any(map(str.strip, values))]
        except csv.Error as error:
            raise InputError(f"{file}:{reader.line_num}", str(error), "a line of the table") from None
        finally:
            csv.field_size_limit(before)


def _separator(head: str) -> str:
    """Returns the first of `SEPARATORS` that splits the line of column names into a label and a text."""
    for separator in SEPARATORS:
        names = {name.strip(' "\n').lower() for name in head.split(separator)}
        if names.intersection(LABELS) and names.intersection(TEXTS):
            return separator
    return SEPARATORS[0]


def _objects(file: Path, content: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(lines_of_text(content), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise InputError(f"{file}:{number}", line.rstrip("\n"), "a JSON object")
            yield f"{file}:{number}", {name.strip().lower(): value for name, value in row.items()}


def _value(where: str, row: Mapping[str, Any], names: Sequence[str]) -> str:
    """Returns the value of the first of these columns that the row has."""
    column = next((name for name in names if name in row), None)
    if column is None:
        fix = "A table begins with a line of column names."
        raise InputError(where, list(row), f"a column {' or '.join(names)}", fix)
    value = row[column]
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
        raise InputError(where, value, f"a text in {column}")
    return str(value).strip()
