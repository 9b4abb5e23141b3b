"""Text that was prepared for language models: one sentence on each line, words separated by white space."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from fedtlu_fast.data.documents import Document
from fedtlu_fast.data.tagged import section_names
from fedtlu_fast.data.tokenizing import UNKNOWN

UNKNOWN_SHARE = 0.001
"""A text with at least this share of ``<unk>`` among its words counts as prepared (ours); an ordinary text
may mention the word now and then."""


def is_prepared(texts: Iterable[str]) -> bool:
    """Guesses whether rare words were replaced by ``<unk>``, as in Penn Treebank and WikiText (ours)."""
    words = unknown = 0
    for text in texts:
        own = text.split()
        words += len(own)
        unknown += own.count(UNKNOWN) if UNKNOWN in text else 0
    return unknown > 0 and unknown >= UNKNOWN_SHARE * words


def lines_of(text: str) -> list[str]:
    """Returns the lines that hold words, without the white space around them."""
    return [line.strip() for line in text.split("\n") if line.strip()]


def joined(lines: Iterable[str]) -> str:
    """Returns the text that consists of these lines."""
    return "".join(f"{line}\n" for line in lines)


def line_sections(name: str, lines: Sequence[str]) -> list[Document]:
    """Makes documents of consecutive lines; their names begin with `name` (see `section_names`)."""
    sections = groupby(zip(section_names(name, len(lines)), lines, strict=True), key=lambda pair: pair[0])
    return [Document(section, joined(line for _, line in own)) for section, own in sections]
