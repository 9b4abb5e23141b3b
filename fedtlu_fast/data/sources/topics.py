"""The embedded default for text classification: which part of Python's reference a paragraph is from.

A fallback for demonstration where no corpus is at hand, and no benchmark. CPython ships the reference by
topics, some of which hold others (``compound`` has all of ``if``, ``while`` and ``for``): a paragraph belongs
to the longest topic that it stands in, and the topics that then have most paragraphs are the labels. What is
in none of these is left out. The texts are the same for one version of Python, and differ between versions.
"""

from __future__ import annotations

import re
from collections import Counter

from fedtlu_fast.data.labelled import by_name
from fedtlu_fast.data.sources.pydoc import pydoc_documents
from fedtlu_fast.data.sources.source import Read, TextSource
from fedtlu_fast.data.splits import announce
from fedtlu_fast.data.text_set import TextSet
from fedtlu_fast.parts import part

FAMILIES = 10
"""Topics that are labels."""
WORDS = 8
"""Shorter paragraphs, such as headings, tell too little."""


@part
class Topics(TextSource):
    """Paragraphs of CPython's language reference, each once; the label is the topic."""

    part_of_python = "pydoc topics"

    def texts(self) -> Read[TextSet]:
        """See `TextSource`."""
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
