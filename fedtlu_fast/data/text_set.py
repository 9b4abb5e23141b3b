"""The type of labelled texts, and the columns in which tables hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedtlu_fast.data.labelled import Attributes

TEXTS = ("text", "sentence", "content", "body", "news_body")
"""Columns that may hold a text; the first one that exists is taken."""
TITLES = ("title", "news_title")
"""Columns that may hold the text's title, which is put before the text."""


@dataclass(frozen=True)
class TextSet:
    """N texts with their attributes.

    Attributes:
        texts: [N], none of them empty.
        attributes: ``label``, and further attributes such as ``domain``. The attributes of a source's
            training and test texts have the same names and codes.
    """

    texts: Sequence[str]
    attributes: Attributes
