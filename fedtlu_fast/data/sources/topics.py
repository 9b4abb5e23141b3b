"""The embedded default for text classification: paragraphs of Python's language reference, labelled by topic.

It is for demonstrations without a corpus and is not a benchmark. CPython's reference is divided into topics,
some of which include others: ``compound`` has all of ``if``, ``while`` and ``for``. A paragraph belongs to
the longest topic in which it occurs, and the labels are the topics that then have the most paragraphs. Other
paragraphs are left out. Each version of Python has its own text.
"""

from __future__ import annotations

import re
from collections import Counter

from typing_extensions import override

from fedtlu_fast.data.labelled import by_name
from fedtlu_fast.data.sources.pydoc import pydoc_documents
from fedtlu_fast.data.sources.source import Read, TextSource
from fedtlu_fast.data.splits import announce
from fedtlu_fast.data.text_set import TextSet
from fedtlu_fast.parts import part

FAMILIES = 10
"""Number of topics that are labels."""
WORDS = 8
"""Smallest number of words in a paragraph; shorter ones, such as headings, are left out."""


@part
class Topics(TextSource):
    """Paragraphs of CPython's language reference without repetitions; the label is the topic."""

    part_of_python = "pydoc topics"

    @override
    def texts(self) -> Read[TextSet]:
        documents = sorted(pydoc_documents(), key=lambda own: (-len(own.text), own.name))
        topics: dict[str, str] = {}
        for document in documents:
            for paragraph in document.text.split("\n\n"):
                text = " ".join(paragraph.split())
                if len(re.findall(r"\w+", text)) >= WORDS:
                    topics.setdefault(text, document.name)
        counts = Counter(topics.values())
        labels = sorted(sorted(counts, key=lambda name: (-counts[name], name))[:FAMILIES])
        kept = {text: name for text, name in topics.items() if name in labels}
        attributes = {"label": by_name(list(kept.values()), labels)}
        return Read(TextSet(list(kept), attributes), None, announce("paragraphs", None))
