"""Labelled texts in files by domain, such as one for each language (as in XGLUE's news classification).

``DOMAIN.ENDING``, or ``DOMAIN.train.ENDING`` and ``DOMAIN.test.ENDING``; a part ``dev`` or ``valid`` is not
read. Endings: ``.csv`` and ``.tsv`` with a line of column names, ``.jsonl`` with an object a line. Columns:
see `LABELS`, `TEXTS` and `TITLES`. In TSV nothing is quoted.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtlu_fast.data.labelled import by_name
from fedtlu_fast.data.labelled_hub import LABELS
from fedtlu_fast.data.sources import read_text
from fedtlu_fast.data.text_set import TEXTS, TITLES, TextSet, TextSplits
from fedtlu_fast.errors import InputError

ENDINGS = (".csv", ".jsonl", ".tsv")
PARTS = {"train": "train", "test": "test", "dev": "", "valid": "", "validation": ""}


@dataclass(frozen=True)
class Text:
    """A text, what it is about, and the file's domain."""

    text: str
    label: str
    domain: str


def load_text_files(location: str) -> TextSplits:
    """Texts to train on, and those to test on where there are files for it.

    Args:
        location: a directory (hidden files and other endings are left out), or one file. With several
            domains they are an attribute.

    Raises:
        InputError: files that are missing, cannot be read or break their format, with the line.
    """
    source = f"texts:{location}"
    try:
        path = Path(location).expanduser()
        files = sorted(path.iterdir()) if path.is_dir() else [path]
    except (OSError, RuntimeError) as error:
        raise InputError("data.source", source, f"a path that can be read; {error}") from None
    found: dict[str, list[Text]] = {"train": [], "test": []}
    for file in files:
        if file.suffix.lower() in ENDINGS and not file.name.startswith("."):
            domain, part = _named(file)
            if part:
                found[part] += _texts(file, domain)
    if not found["train"]:
        raise InputError("data.source", source, f"a file with texts to train on ({', '.join(ENDINGS)})")
    both = [*found["train"], *found["test"]]
    labels, domains = (sorted({getattr(own, name) for own in both}) for name in ("label", "domain"))
    train, test = (_text_set(found[part], labels, domains) for part in ("train", "test"))
    return train, test if found["test"] else None


def _named(file: Path) -> tuple[str, str]:
    """The domain, and ``train``, ``test`` or nothing."""
    domain, _, part = file.stem.rpartition(".")
    return (domain, PARTS[part]) if domain and part in PARTS else (file.stem, "train")


def _text_set(texts: Sequence[Text], labels: Sequence[str], domains: Sequence[str]) -> TextSet:
    attributes = {"label": by_name([own.label for own in texts], labels)}
    if len(domains) > 1:
        attributes["domain"] = by_name([own.domain for own in texts], domains)
    return TextSet([own.text for own in texts], attributes)


def _texts(file: Path, domain: str) -> Iterator[Text]:
    content = read_text(file).removeprefix("\ufeff")
    rows = _objects(file, content) if file.suffix.lower() == ".jsonl" else _table(file, content)
    for where, row in rows:
        label, text = _value(where, row, LABELS), _value(where, row, TEXTS)
        title = next((str(row[name]) for name in TITLES if row.get(name)), "")
        yield Text(f"{title} {text}".strip(), label, domain)


def _table(file: Path, content: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    tabs = file.suffix.lower() == ".tsv"
    lines: Iterable[str] = io.StringIO(content, newline="")
    style: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"strict": True}
    reader = csv.reader(lines, **style)
    try:
        columns = next(reader, [])
        for values in reader:
            where = f"{file}:{reader.line_num}"
            if values and len(values) != len(columns):
                expected = f"{len(columns)} columns, as in the first line; there are {len(values)}"
                raise InputError(where, values[0], expected)
            if values:
                yield where, dict(zip(columns, values, strict=True))
    except csv.Error as error:
        raise InputError(f"{file}:{reader.line_num}", str(error), "a line of the table") from None


def _objects(file: Path, content: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise InputError(f"{file}:{number}", line, "a JSON object")
            yield f"{file}:{number}", row


def _value(where: str, row: Mapping[str, Any], names: Sequence[str]) -> str:
    """Of the first of these columns that is there."""
    column = next((name for name in names if name in row), None)
    if column is None:
        raise InputError(where, list(row), f"a column {' or '.join(names)}")
    value = row[column]
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
        raise InputError(where, value, f"a text in {column}")
    return str(value).strip()
