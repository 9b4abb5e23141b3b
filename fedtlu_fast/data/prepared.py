"""Text that was prepared for language models: words between white space, a line for a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from fedtlu_fast.data.documents import Document
from fedtlu_fast.data.tagged import section_names
from fedtlu_fast.data.tokenizing import UNKNOWN

UNKNOWN_SHARE = 0.001
"""From this share of ``<unk>`` among its words on, somebody prepared a text; others name it now and then."""


def is_prepared(texts: Iterable[str]) -> bool:
    """Whether rare words are ``<unk>`` already, as in Penn Treebank and WikiText: a guess (ours)."""
    words = unknown = 0
    for text in texts:
        own = text.split()
        words += len(own)
        unknown += own.count(UNKNOWN) if UNKNOWN in text else 0
    return unknown > 0 and unknown >= UNKNOWN_SHARE * words


def lines_of(text: str) -> list[str]:
    """The lines that hold words, without the space around them."""
    return [line.strip() for line in text.split("\n") if line.strip()]


def joined(lines: Iterable[str]) -> str:
    """The text of these lines."""
    return "".join(f"{line}\n" for line in lines)


def line_sections(name: str, lines: Sequence[str]) -> list[Document]:
    """Documents of lines that follow each other, named after the whole; see `section_names`."""
    sections = groupby(zip(section_names(name, len(lines)), lines, strict=True), key=lambda pair: pair[0])
    return [Document(section, joined(line for _, line in own)) for section, own in sections]
