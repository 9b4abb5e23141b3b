"""The embedded default for language modelling: the language reference that comes with CPython."""

from __future__ import annotations

import importlib

from typing_extensions import override

from fedtlu_fast.data.documents import Document, Documents
from fedtlu_fast.data.sources.source import DocumentSource, Read
from fedtlu_fast.data.splits import announce
from fedtlu_fast.parts import part


@part
class Pydoc(DocumentSource):
    """CPython's language reference, with a document for each topic.

    Python 3.11 has 79 topics with about 465,000 characters. Each version of Python has its own text.
    """

    part_of_python = "pydoc topics"

    @override
    def documents(self) -> Read[Documents]:
        return Read(Documents(pydoc_documents()), None, announce("documents", None))


def pydoc_documents() -> list[Document]:
    """Returns the topics of Python's language reference, sorted by name."""
    # Imported by name: type checkers have no stubs for this part of the standard library.
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    return [Document(name, topics[name]) for name in sorted(topics)]
