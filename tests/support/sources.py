"""Reads sources, given as in settings, in the forms that tests compare."""

from dataclasses import dataclass, field
from typing import Any

from fedtlu_fast.build.data import reading_of
from fedtlu_fast.config import RunConfig
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.data.documents import Document, Documents
from fedtlu_fast.data.federated import Encoded, FederatedData
from fedtlu_fast.data.image_set import ImageSet
from fedtlu_fast.data.sources.source import Read, Source
from fedtlu_fast.data.splits import Origin
from fedtlu_fast.data.tagged import Sentence, cut_test
from fedtlu_fast.data.text_set import TextSet
from fedtlu_fast.tasks.builder import builder_of


def source(text: str, **more: Any) -> Source:
    """Returns the source that settings name."""
    return parse_config({"data": {"source": text, **more}}).data.source


def read_parts(text: str) -> Read[Documents]:
    """Returns a source's running text."""
    return source(text).documents()


def read_documents(text: str) -> list[Document]:
    """Returns a source's training documents."""
    return read_parts(text).train.items


def read_texts(text: str) -> tuple[TextSet, TextSet | None]:
    """Returns a source's labelled texts: training and test texts."""
    found = source(text).texts()
    return found.train, found.test


def read_images(text: str, size: int | None = None) -> tuple[ImageSet, ImageSet | None]:
    """Returns a source's labelled images, scaled: training and test images."""
    found = source(text, image_size=size).images()
    return found.train, found.test


@dataclass(frozen=True)
class Corpus:
    """Tagged sentences, divided into training and test sentences."""

    train: list[Sentence]
    test: list[Sentence]
    tags: tuple[str, ...]
    origin: Origin = field(compare=False)


def read_corpus(text: str, test_fraction: float) -> Corpus:
    """Returns a source's tagged sentences; without a test, a share is kept for it."""
    found = source(text).sentences()
    train, test = found.train.items, found.test.items if found.test else ()
    if found.test is None:
        train, test = cut_test(train, test_fraction)
    return Corpus(list(train), list(test), found.train.tags, found.origin)


def read_samples(config: RunConfig) -> Encoded | FederatedData:
    """Returns the samples of these settings as tensors, before they are dealt."""
    return builder_of(config.task).read(config.data.source, reading_of(config))
