"""Reads Universal Dependencies treebanks, which are files in the CoNLL-U format.

These parts of the format (universaldependencies.org/format.html) matter here. A file is UTF-8. A sentence
consists of comment lines, which begin with ``#``, a line for each word, and an empty line. A word's line has
ten columns, separated by tabs: ID, FORM, LEMMA, UPOS and six more. IDs count words from 1. A line whose ID is
a range (``3-4``) has the spelling of a multiword token (*don't*), whose words (*do*, *n't*) follow with lines
and tags of their own. A line whose ID has a point (``3.1``) is an empty node, which is not a word of the
text. Lines of these two kinds have no tag and are left out. ``# newdoc id = NAME`` begins a document.

The reader accepts more than the format: lines may end with CR LF, several empty lines may follow each other,
and the empty line after the last sentence may be missing.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import chain
from pathlib import Path

from fedtlu_fast.data.reading import (
    UNPACKED_LIMIT,
    UnpackedLimit,
    as_path,
    entries,
    lines_of_text,
    read_text,
    unpacked_suffix,
)
from fedtlu_fast.data.sources.source import PathSource, Read, SentenceSource
from fedtlu_fast.data.splits import Division, announce, divide, parse, stem
from fedtlu_fast.data.tagged import (
    UNKNOWN_GENRE,
    UPOS,
    Sentence,
    Sentences,
    section_names,
    with_words,
)
from fedtlu_fast.errors import InputError, listed
from fedtlu_fast.parts import part

COLUMNS = 10
GENRES = ("answers", "email", "newsgroup", "reviews", "weblog")
"""The genres of the English Web Treebank; its documents' names begin with them."""
NEWDOC = re.compile(r"#\s*newdoc\b(?:\s+id\s*=\s*(?P<id>.*\S))?")
NO_WORD = re.compile(r"\d+-\d+|\d+\.\d+")


@part
class Udpos(PathSource, SentenceSource):
    """A treebank of Universal Dependencies: words and their universal part-of-speech tags.

    Attributes:
        path: a single file, or a directory with the files of one treebank, plain or compressed. In a
            directory names say the part (see `splits`): ``*-train.conllu`` or several pieces such as
            ``*-train-a.conllu``, and ``*-test.conllu``. Without a test file, the end of every document is
            kept for the test. ``*-dev.conllu`` is not read, because nothing is tuned on it; files of other
            kinds are ignored.
        unpacked_limit: largest number of bytes to which a compressed file may unpack.
    """

    path: str
    unpacked_limit: UnpackedLimit = UNPACKED_LIMIT

    def sentences(self) -> Read[Sentences]:
        """See `SentenceSource`.

        Raises:
            InputError: there is no training file, there are files of several treebanks, or see `read_conllu`.
        """
        source, limit = str(self), self.unpacked_limit
        path = as_path(source, self.path)
        if not path.is_dir():
            sentences = read_conllu(path, limit)
            return Read(Sentences(sentences, UPOS), None, announce("sentences", None, train=[path.name]))
        found = _files(path, source)
        train, test = (
            [sentence for name in names for sentence in read_conllu(path / name, limit)]
            for names in (found.train, found.test)
        )
        unread = (*found.validation, *found.others)
        origin = announce("sentences", len(test) if test else None, found.test, unread, found.train)
        return Read(Sentences(train, UPOS), Sentences(test, UPOS) if test else None, origin)


def _files(folder: Path, source: str) -> Division:
    try:
        names = [own.name for own in entries(folder) if unpacked_suffix(own) == ".conllu" and own.is_file()]
    except OSError as error:
        raise InputError("data.source", source, f"a directory that can be read; {error}") from None
    found = divide(names, source)
    if not found.train:
        there = listed((*found.test, *found.validation)) or "none"
        fix = "Name that file itself: its ends are kept for the test then." if found.test else ""
        expected = f"a file *-train.conllu in it, plain or compressed; there is {there}"
        raise InputError("data.source", source, expected, fix)
    banks = {_bank(name): name for name in (*found.train, *found.test)}
    if len(banks) > 1:
        expected = f"the files of one treebank; there is {' and '.join(sorted(banks.values())[:2])}"
        raise InputError("data.source", source, expected, "Move the others elsewhere, or name a single file.")
    return found


def _bank(name: str) -> str:
    """Returns the treebank's name, which is the part of a file's name before the word that says the part."""
    base, word = stem(name).lower(), parse(name).word
    return base[: base.rindex(word)] if word else base


def read_conllu(path: Path, limit: int = UNPACKED_LIMIT) -> list[Sentence]:
    """Reads the sentences of a file, in order.

    A sentence's genre is the first part of its document's name, if that is one of `GENRES`. A file without
    documents is cut into sections.

    Args:
        path: the file.
        limit: see `read_bytes`.

    Raises:
        InputError: the file cannot be read, has no sentence, breaks the format (the message names the line),
            or has underscores in place of words (see `with_words`).
    """
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    document, documents = path.name, 0
    # The last sentence may lack its empty line.
    for number, raw in enumerate(chain(lines_of_text(read_text(path, limit)), [""]), start=1):
        line = raw.removesuffix("\n")
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
    sentences = with_words(sentences, str(path))
    if not documents:
        names = section_names(path.name, len(sentences))
        return [replace(own, document=name) for own, name in zip(sentences, names, strict=True)]
    return sentences


def _word(path: Path, number: int, line: str, place: int) -> tuple[str, str] | None:
    """Returns a line's word and tag, or None for a multiword token or an empty node."""
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
