"""Labelled texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedtlu_fast.data.labelled import Attributes
from fedtlu_fast.data.splits import Origin

TEXTS = ("text", "sentence", "content", "body", "news_body")
"""Columns that may hold a text; the first that is there does."""
TITLES = ("title", "news_title")
"""Columns that may hold its title, which is put before it."""


@dataclass(frozen=True)
class TextSet:
    """N texts, and what is known of them.

    Attributes:
        texts: none of them empty.
        attributes: ``label``, what they are about, and what else is known, such as ``domain``.
        origin: of these and of the test, with the texts to train on.
    """

    texts: Sequence[str]
    attributes: Attributes
    origin: Origin | None = None


TextSplits = tuple[TextSet, TextSet | None]
"""Texts to train on, and those to test on where the source has some of its own: with the same labels."""
