"""Labelled texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedtlu_fast.data.labelled import Attributes

TEXTS = ("text", "sentence", "content", "body", "news_body")
"""Columns that may hold a text; the first that is there does."""
TITLES = ("title", "news_title")
"""Columns that may hold its title, which is put before it."""


@dataclass(frozen=True)
class TextSet:
    """N texts, and what is known of them.

    Attributes:
        texts: none of them empty.
        attributes: ``label``, what they are about, and what else is known, such as ``domain``. Training and
            test texts of a source have the same names.
    """

    texts: Sequence[str]
    attributes: Attributes
