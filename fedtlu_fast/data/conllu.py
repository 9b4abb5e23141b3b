"""Universal Dependencies treebanks: the CoNLL-U format, and the files of a treebank.

The format (universaldependencies.org/format.html), as far as it matters here. A file is UTF-8. A sentence is
comment lines (``#`` first), then a line for each word, then an empty line. A word's line has ten columns
between tabs: ID, FORM, LEMMA, UPOS and six more. IDs count words from 1. A line whose ID is a range
(``3-4``) gives the spelling of a multiword token (*don't*), whose words (*do*, *n't*) follow with lines and
tags of their own; one whose ID has a point (``3.1``) is an empty node, no word of the text. Both are left
out: neither has a tag. ``# newdoc id = NAME`` begins a document.

More lenient than the format: lines may end with CR LF, empty lines may be more than one, and the one after
the last sentence may be missing.
"""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import replace
from pathlib import Path

from fedtlu_fast.data.tagged import UNKNOWN_GENRE, UPOS, Corpus, Sentence, cut_test, section_names
from fedtlu_fast.errors import InputError

COLUMNS = 10
GENRES = ("answers", "email", "newsgroup", "reviews", "weblog")
"""Of the English Web Treebank, whose documents' names begin with them."""
NEWDOC = re.compile(r"#\s*newdoc\b(?:\s+id\s*=\s*(?P<id>.*\S))?")
NO_WORD = re.compile(r"\d+-\d+|\d+\.\d+")


def load_treebank(location: str, test_fraction: float) -> Corpus:
    """A treebank's training part and test part.

    Args:
        location: a directory with one ``*-train.conllu`` and one ``*-test.conllu``, plain or ``.gz`` (a
            ``*-dev.conllu`` is not read: nothing is tuned on it); or a single file, of which the end of
            every document is kept for the test.
        test_fraction: share kept of a single file; unused for a directory.

    Raises:
        InputError: files are missing, or there are several for one part; or see `read_conllu`.
    """
    try:
        path = Path(location).expanduser()
        folder, exists = path.is_dir(), path.exists()
    except (OSError, RuntimeError) as error:
        raise InputError("data.source", f"udpos:{location}", f"a path that can be read; {error}") from None
    if not exists:
        raise InputError("data.source", f"udpos:{location}", "a CoNLL-U file or a directory that exists")
    if not folder:
        return cut_test(read_conllu(path), test_fraction, UPOS)
    train, test = (_part(path, name) for name in ("train", "test"))
    return Corpus(read_conllu(train), read_conllu(test), UPOS)


def _part(folder: Path, name: str) -> Path:
    pattern = re.compile(rf"(.*[-_.])?{name}\.conllu(\.gz)?")
    found = sorted(item.name for item in folder.iterdir() if pattern.fullmatch(item.name))
    if len(found) != 1:
        raise InputError(
            "data.source",
            f"udpos:{folder}",
            f"one file *-{name}.conllu or *-{name}.conllu.gz in it; there is {' and '.join(found) or 'none'}",
            "Move the others elsewhere, or name a single file." if found else "",
        )
    return folder / found[0]


def read_conllu(path: Path) -> list[Sentence]:
    """The sentences of a file, in order.

    A sentence's genre is the first part of its document's name where that is one of `GENRES`. A file that
    names no documents is cut into sections.

    Raises:
        InputError: the file cannot be read, holds no sentence, or breaks the format; with the line.
    """
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    document, documents = path.name, 0
    # The last sentence may lack its empty line.
    for number, raw in enumerate([*_text(path).split("\n"), ""], start=1):
        line = raw.removesuffix("\r")
        if not line.strip():
            if words:
                sentences.append(Sentence(tuple(words), tuple(tags), document, _genre(document)))
                words, tags = [], []
        elif line.startswith("#"):
            if words:
                raise InputError(f"{path}:{number}", line, "comments before a sentence's first word only")
            if begins := NEWDOC.match(line):
                documents += 1
                document = begins["id"] or f"{path.name}#{documents}"
        else:
            word = _word(path, number, line, len(words) + 1)
            if word is not None:
                words.append(word[0])
                tags.append(word[1])
    if not sentences:
        raise InputError(str(path), "no sentence", "one or more in CoNLL-U")
    if not documents:
        names = section_names(path.name, len(sentences))
        return [replace(own, document=name) for own, name in zip(sentences, names, strict=True)]
    return sentences


def _word(path: Path, number: int, line: str, place: int) -> tuple[str, str] | None:
    """A line's word and tag; None for a multiword token or an empty node."""
    columns, where = line.split("\t"), f"{path}:{number}"
    if len(columns) != COLUMNS:
        raise InputError(where, line, f"{COLUMNS} columns between tabs; there are {len(columns)}")
    name, form, tag = columns[0], columns[1], columns[3]
    if NO_WORD.fullmatch(name):
        return None
    if name != str(place):
        expected = f"{place} in the first column, as words are counted"
        raise InputError(where, name, expected, "Perhaps an empty line between two sentences is missing.")
    if not form.strip():
        raise InputError(where, form, "a word in the second column")
    if not tag.strip() or tag == "_":
        raise InputError(
            where,
            tag,
            f"a tag in the fourth column, for the word {form}",
            "A treebank without tags is no use.",
        )
    return form, tag


def _genre(document: str) -> str:
    first = document.partition("-")[0]
    return first if first in GENRES else UNKNOWN_GENRE


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError("data.source", str(path), f"a readable file; {reason}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}:{line}",
            data[error.start : error.start + 1],
            "UTF-8 text throughout",
            "Convert it (iconv -t utf-8).",
        ) from None
