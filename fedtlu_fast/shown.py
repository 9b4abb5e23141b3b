"""Escapes the user's names and paths, so that no character in them can act on a terminal or a page."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control characters, invisible characters, characters that change text direction, lone surrogates."""


def visible(text: str) -> str:
    r"""Replaces every invisible character by an escape, such as ``\x1b``, ``\n`` or ``\u202e``.

    A byte of a path that is not UTF-8 becomes an escape of that byte, ``\xff``.
    """
    return _UNSEEN.sub(_escaped, text)


def shell_word(path: Path | str) -> str:
    r"""Quotes a path or an argument as one word for a shell; invisible characters become ``$'p\xff'``."""
    text = str(path)
    if not _UNSEEN.search(text):
        return shlex.quote(text)
    # Characters beyond ASCII are written byte by byte, because \x takes two digits.
    quoted = "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b"\\'" else f"\\x{byte:02x}"
        for byte in os.fsencode(text)
    )
    return f"$'{quoted}'"


def one_line(error: object) -> str:
    """Joins the lines of a library's error message to one line."""
    return visible(" ".join(str(error).split()))


def _escaped(match: re.Match[str]) -> str:
    sign = match[0]
    if "\udc80" <= sign <= "\udcff":
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode("ascii")


def short_names(blocks: Sequence[str]) -> list[str]:
    """Removes the prefix that all block names share: ``transformer.h.3`` -> ``h.3``."""
    paths = [block.split(".") for block in blocks]
    shared = len(list(takewhile(lambda column: len(set(column)) == 1, zip(*paths, strict=False))))
    shared = min(shared, *(len(path) - 1 for path in paths)) if paths else 0
    if any(path[shared].isdigit() for path in paths):
        shared = max(0, shared - 1)
    return [".".join(path[shared:]) for path in paths]
