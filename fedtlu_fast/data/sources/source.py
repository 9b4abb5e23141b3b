"""The interface of a source, which reads or makes samples.

To write your own, subclass the class for your kind of samples: `DocumentSource` for running text,
`SentenceSource` for words with tags, `TextSource` for texts with labels, `ImageSource` for images with
labels. `VectorSource` and `TokenSource` are for samples that already belong to clients. A source may be
several of these; a task says which ones it reads.
"""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

from typing_extensions import override

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
    """The samples that a source has read.

    Attributes:
        train: the samples that are dealt to the clients.
        test: the global test; None: the source has no test of its own.
        origin: the entries of the source (files, folders, splits) from which the samples were read.
    """

    train: Form
    test: Form | None
    origin: Origin


class Source:
    """A source of samples. It reads nothing before a task asks for samples.

    Attributes:
        argument: the parameters that settings write after the colon, as in ``text:PATH``; empty for a source
            without such parameters.
        written: placeholder for the argument in help texts, such as ``PATH``.
        own_vocabulary: default size of the vocabulary, in words; None: the settings' default.
        part_of_python: the part of Python from which the samples are made, such as "pydoc topics"; empty if
            they are not from Python.
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
        """Returns the parameters for the text after the colon."""
        return {cls.argument[0]: text}

    def written_argument(self) -> str:
        """Returns the text after the colon; empty for a source without an argument."""
        return str(getattr(self, self.argument[0])) if self.argument else ""

    def located(self) -> Self:
        """Returns the same source with absolute paths, so that it is found from every directory."""
        return self

    @property
    def made_with(self) -> str:
        """The origin of embedded data, such as "Python 3.11.7's pydoc topics"; empty for other data."""
        return f"Python {platform.python_version()}'s {self.part_of_python}" if self.part_of_python else ""


class PathSource(Source):
    """A source in a file or a directory."""

    argument = ("path",)
    written = "PATH"
    path: str

    @override
    def located(self) -> Self:
        return replace(self, path=absolute(self.path))  # type: ignore[type-var]


class DocumentSource(Source, ABC):
    """A source of running text, for language modelling."""

    @abstractmethod
    def documents(self) -> Read[Documents]:
        """Reads the documents.

        Raises:
            InputError: the documents cannot be read.
        """


class SentenceSource(Source, ABC):
    """A source of words with a tag each, for tagging."""

    @abstractmethod
    def sentences(self) -> Read[Sentences]:
        """Reads the sentences.

        Raises:
            InputError: the sentences cannot be read.
        """


class TextSource(Source, ABC):
    """A source of texts with a label each, for text classification."""

    @abstractmethod
    def texts(self) -> Read[TextSet]:
        """Reads the texts.

        Raises:
            InputError: the texts cannot be read.
        """


class ImageSource(Source, ABC):
    """A source of images with a label each, for image classification."""

    @abstractmethod
    def images(self) -> Read[ImageSet]:
        """Reads the images.

        Raises:
            InputError: the images cannot be read, or have several sizes.
        """


class ClientSource(Source):
    """A source whose samples already belong to clients: none are dealt, and none can be set aside."""


class VectorSource(ClientSource, ABC):
    """A source of clients that hold vectors of numbers with a label each, for classification."""

    @abstractmethod
    def vectors(self, clients: int, seed: int, local_fraction: float) -> FederatedData:
        """Opens the data of the clients.

        Args:
            clients: number of clients.
            seed: the run's seed.
            local_fraction: share of each client's samples that is kept for its own test, unless the source
                itself says which samples are.

        Raises:
            InputError: the data cannot be opened, or have fewer clients.
        """


class TokenSource(ClientSource, ABC):
    """A source of clients that hold windows of token ids, for language modelling."""

    @abstractmethod
    def tokens(self, clients: int, window: int, vocabulary: int) -> FederatedData:
        """Opens the data of the clients.

        Args:
            clients: number of clients.
            window: T; a sample has T + 1 token ids.
            vocabulary: number of different token ids.

        Raises:
            InputError: the data cannot be opened, have fewer clients, or hold samples of another length.
        """
