"""The interface of a source: where samples are from.

To write your own, subclass the class of the samples that you have: `DocumentSource` for running text,
`SentenceSource` for words with tags, `TextSource` for texts with labels, `ImageSource` for images with
labels. `VectorSource` and `TokenSource` are for samples that belong to clients already. A source may be
several of these; a task says which ones it reads.
"""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

from fedtlu_fast.data.documents import Documents
from fedtlu_fast.data.federated import FederatedData
from fedtlu_fast.data.image_set import ImageSet
from fedtlu_fast.data.splits import Origin
from fedtlu_fast.data.tagged import Sentences
from fedtlu_fast.data.text_set import TextSet
from fedtlu_fast.places import absolute
from fedtlu_fast.registry import spelled

Form = TypeVar("Form", Documents, Sentences, TextSet, ImageSet)


@dataclass(frozen=True)
class Read(Generic[Form]):
    """Samples and where they are from.

    Attributes:
        train: what the clients are given.
        test: the global test; None where the source has no test of its own.
        origin: which entries of the source were read as what.
    """

    train: Form
    test: Form | None
    origin: Origin


class Source:
    """Where samples are from. Nothing is read before a task asks for samples.

    Attributes:
        argument: the parameters that stand after the colon in settings, as in ``text:PATH``; none for a
            source that is complete by its name.
        written: how settings write that argument, such as ``PATH``.
        own_vocabulary: words that are kept if settings say nothing else; None for the settings' default.
        part_of_python: the part of Python that the source is, such as "pydoc topics"; empty for others.
    """

    argument: ClassVar[tuple[str, ...]] = ()
    written: ClassVar[str] = ""
    own_vocabulary: ClassVar[int | None] = None
    part_of_python: ClassVar[str] = ""

    def __str__(self) -> str:
        """The source as settings write it, such as ``text:book.txt``."""
        name, text = spelled("source", type(self)), self.written_argument()
        return f"{name}:{text}" if self.argument else name

    @classmethod
    def parsed_argument(cls, text: str) -> dict[str, Any]:
        """The parameters that stand after the colon."""
        return {cls.argument[0]: text}

    def written_argument(self) -> str:
        """What stands after the colon."""
        return str(getattr(self, self.argument[0])) if self.argument else ""

    def located(self) -> Self:
        """The same source, named so that it is found from every directory."""
        return self

    @property
    def made_with(self) -> str:
        """What embedded data are made with, such as "Python 3.11.7's pydoc topics"; else empty."""
        return f"Python {platform.python_version()}'s {self.part_of_python}" if self.part_of_python else ""


class PathSource(Source):
    """A source in a file or a directory."""

    argument = ("path",)
    written = "PATH"
    path: str

    def located(self) -> Self:
        """See `Source`."""
        return replace(self, path=absolute(self.path))  # type: ignore[type-var]


class DocumentSource(Source, ABC):
    """A source of running text, for language modelling."""

    @abstractmethod
    def documents(self) -> Read[Documents]:
        """Reads the documents.

        Raises:
            InputError: they cannot be read.
        """


class SentenceSource(Source, ABC):
    """A source of words with a tag each, for tagging."""

    @abstractmethod
    def sentences(self) -> Read[Sentences]:
        """Reads the sentences.

        Raises:
            InputError: they cannot be read.
        """


class TextSource(Source, ABC):
    """A source of texts with a label each, for text classification."""

    @abstractmethod
    def texts(self) -> Read[TextSet]:
        """Reads the texts.

        Raises:
            InputError: they cannot be read.
        """


class ImageSource(Source, ABC):
    """A source of images with a label each, for image classification."""

    @abstractmethod
    def images(self) -> Read[ImageSet]:
        """Reads the images.

        Raises:
            InputError: they cannot be read, or are of several sizes.
        """


class ClientSource(Source):
    """A source whose samples belong to clients already; nothing is dealt, and nothing can be set aside."""


class VectorSource(ClientSource, ABC):
    """A source of clients that hold vectors of numbers with a label each, for classification."""

    @abstractmethod
    def vectors(self, clients: int, seed: int, local_fraction: float) -> FederatedData:
        """Opens the clients.

        Args:
            clients: how many.
            seed: of what is drawn.
            local_fraction: the share of each client's samples that is kept for its own test, where the
                source does not say which.

        Raises:
            InputError: they cannot be opened, or are fewer.
        """


class TokenSource(ClientSource, ABC):
    """A source of clients that hold windows of token ids, for language modelling."""

    @abstractmethod
    def tokens(self, clients: int, window: int, vocabulary: int) -> FederatedData:
        """Opens the clients.

        Args:
            clients: how many.
            window: T; a sample is T + 1 token ids.
            vocabulary: the number of token ids.

        Raises:
            InputError: they cannot be opened, are fewer, or hold samples of another length.
        """
