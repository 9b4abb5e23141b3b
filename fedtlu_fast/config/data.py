"""Settings: which samples there are, and who gets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    Field,
    model_validator,
)

from fedtlu_fast.config.parts_section import Chooser, PartsSection
from fedtlu_fast.config.source_setting import SourceChooser
from fedtlu_fast.data.partition import Dirichlet, Partitioner
from fedtlu_fast.data.sources.pydoc import Pydoc
from fedtlu_fast.data.sources.source import Source
from fedtlu_fast.errors import InputError

VOCABULARY = 2000
"""Words kept where neither settings nor the source say how many."""


class DataConfig(PartsSection):
    """Which samples there are, and how text is cut into them."""

    source: Annotated[Source, SourceChooser()] = Field(
        Pydoc(),
        description="pydoc (default) | text:PATH (a UTF-8 file or a directory) | ptb:DIR (ptb.*.txt) | "
        "pycode (tagging, its default) | udpos:PATH (tagging; CoNLL-U) | hf:NAME[:CONFIG][@REVISION] | "
        "digits (images, their default) | cifar10:PATH, cifar100:PATH (binary version or Parquet) | "
        "images:DIR (DIR/[DOMAIN/]LABEL/*) | topics (text classification, its default) | "
        "texts:PATH (DOMAIN.tsv, .csv, .jsonl) | synthetic | "
        "arrays:DIR (.npy files with an index of the clients) | package.module:Name",
    )
    vocabulary: int = Field(
        VOCABULARY,
        ge=8,
        le=2**31 - 1,
        description="words kept if the model brings no tokenizer; others are <unk> (10000 for ptb:DIR)",
    )
    window: int = Field(32, ge=2, description="tokens in one sample")
    test_fraction: float = Field(0.1, gt=0, lt=1, description="share of each source kept for the global test")
    local_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of each client's samples kept for its own test"
    )

    @model_validator(mode="before")
    @classmethod
    def _own_vocabulary(cls, value: Any) -> Any:
        """Without a word on it, a source may have a vocabulary of its own, to which rare words were cut."""
        if isinstance(value, Mapping) and "vocabulary" not in value:
            return {"vocabulary": _own_vocabulary(value.get("source")) or VOCABULARY, **value}
        return value


def _own_vocabulary(source: Any) -> int | None:
    if isinstance(source, str):
        try:
            source = SourceChooser().found("source", source)
        except InputError:  # which is said where the source is read
            return None
    return getattr(source, "own_vocabulary", None)


class PartitionConfig(PartsSection):
    """How samples are dealt to clients; the parameters' names are those of Flower Datasets' arguments."""

    name: Annotated[Partitioner, Chooser("partitioner", base=Partitioner)] = Field(
        Dirichlet(),
        description="iid | dirichlet[:ALPHA] | inner_dirichlet[:ALPHA] | pathological[:CLASSES] | "
        "shard[:SHARDS] | natural (whole documents, topics, ...) | grouped_natural[:SIZE] | linear, square, "
        "exponential (sizes alone differ) | package.module:Name; a value after the name and a colon is the "
        "first parameter",
    )
    min_samples: int = Field(4, ge=2, description="no client gets fewer samples than this (ours)")

    @property
    def partitioner(self) -> Partitioner:
        """The part that `name` chooses."""
        return self.name

    @classmethod
    def spelled_out(cls, given: Any) -> Any:
        """See `Section`: ``dirichlet:0.1`` is ``{name: dirichlet, alpha: 0.1}``."""
        if isinstance(given, str):
            return cls.choosers()["name"].spelled_out("name", given)
        return {"name": given} if isinstance(given, Partitioner) else given
