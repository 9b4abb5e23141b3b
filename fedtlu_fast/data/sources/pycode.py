"""The embedded default for tagging: the source code of Python's standard library, with a tag for each token.

It is for demonstrations without a treebank and is not a benchmark, because the tags follow from simple rules.
Some depend on the neighbours (a name is a CALL before a bracket, an ATTRIBUTE after a point, a DEFINITION
after ``def``), so that there is something to learn. Each version of Python has its own text.
"""

from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Iterator
from importlib.util import find_spec

from fedtlu_fast.data.sources.source import Read, SentenceSource
from fedtlu_fast.data.splits import announce
from fedtlu_fast.data.tagged import Sentence, Sentences
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part

MODULES = """
    argparse ast base64 bdb bisect calendar cmd code colorsys configparser contextlib copy copyreg csv
    dataclasses difflib dis doctest enum fileinput filecmp fnmatch fractions ftplib functools getopt
    gettext glob graphlib gzip hashlib heapq hmac imaplib inspect ipaddress keyword linecache locale
    mailbox mimetypes modulefinder netrc numbers opcode operator optparse pickle pickletools pkgutil
    platform plistlib poplib pprint profile pstats pyclbr queue quopri random reprlib rlcompleter sched
    secrets selectors shelve shlex shutil smtplib socket socketserver statistics string stringprep
    subprocess symtable tabnanny tarfile tempfile textwrap threading timeit token tokenize trace
    traceback types typing uuid warnings wave weakref webbrowser zipapp zipfile
"""
"""The modules that are read; modules that a version of Python lacks are left out."""
LINES = 80
"""Number of logical lines that are read from the beginning of each module."""
KINDS = {tokenize.NUMBER: "NUMBER", tokenize.OP: "OPERATOR", tokenize.COMMENT: "COMMENT"}
UNSEEN = (
    tokenize.ENCODING,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.ENDMARKER,
)


@part
class Pycode(SentenceSource):
    """Logical lines of Python's standard library as sentences; a document is a module."""

    part_of_python = "standard library"

    def sentences(self) -> Read[Sentences]:
        """See `SentenceSource`.

        Raises:
            InputError: this Python has no source code of its standard library.
        """
        found = [sentence for module in MODULES.split() for sentence in _module(module)]
        if not found:
            expected = "a Python with its library's source code"
            raise InputError("data.source", "pycode", expected, "Use udpos:PATH or hf:NAME.")
        return Read(Sentences(found), None, announce("lines", None))


def _module(name: str) -> list[Sentence]:
    spec = find_spec(name)
    read = getattr(spec.loader, "get_source", None) if spec is not None else None
    source = read(name) if read is not None else None
    if not source:
        return []
    return [
        Sentence(tuple(word for word, _ in line), tuple(tag for _, tag in line), name)
        for line, _ in zip(_lines(source), range(LINES), strict=False)
    ]


def _lines(source: str) -> Iterator[list[tuple[str, str]]]:
    """Yields the tokens of every logical line, each with its tag."""
    line: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in UNSEEN and token.string.strip():
            line.append(token)
        elif token.type in (tokenize.NEWLINE, tokenize.ENDMARKER) and line:
            yield [(own.string, _tag(line, place)) for place, own in enumerate(line)]
            line = []


def _tag(line: list[tokenize.TokenInfo], place: int) -> str:
    token = line[place]
    if token.type != tokenize.NAME:
        # The other types are strings and, from Python 3.12 on, the pieces of f-strings.
        return KINDS.get(token.type, "STRING")
    before = line[place - 1].string if place else ""
    if keyword.iskeyword(token.string):
        return "KEYWORD"
    if before in ("def", "class"):
        return "DEFINITION"
    if place + 1 < len(line) and line[place + 1].string == "(":
        return "CALL"
    return "ATTRIBUTE" if before == "." else "NAME"
