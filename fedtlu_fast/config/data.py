"""Defines the settings of the data: which samples there are, and which client gets which of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    Field,
    model_validator,
)

from fedtlu_fast.config.chooser import Chooser
from fedtlu_fast.config.parts_section import PartsSection
from fedtlu_fast.config.source_setting import SourceChooser
from fedtlu_fast.data.partition import Dirichlet, Partitioner
from fedtlu_fast.data.sources.pydoc import Pydoc
from fedtlu_fast.data.sources.source import Source
from fedtlu_fast.errors import InputError

VOCABULARY = 2000
"""Words that are kept if neither the settings nor the source give a number."""


class DataConfig(PartsSection):
    """Says which samples there are, and how text is cut into samples."""

    source: Annotated[Source, SourceChooser()] = Field(
        Pydoc(),
        description="where samples come from. Text: pydoc (default) | text:PATH (a UTF-8 file or a "
        "directory) | ptb:DIR (ptb.*.txt). Tagging: pycode (default) | udpos:PATH (CoNLL-U files). Images: "
        "digits (default) | cifar10:PATH, cifar100:PATH (binary version or Parquet) | images:DIR "
        "(DIR/[DOMAIN/]LABEL/*). Text classification: topics (default) | texts:PATH (DOMAIN.tsv, .csv, "
        ".jsonl). Vectors: synthetic | arrays:DIR (.npy files with an index of the clients). Any "
        "task: hf:NAME[:CONFIG][@REVISION] | package.module:Name",
    )
    vocabulary: int = Field(
        VOCABULARY,
        ge=8,
        le=2**31 - 1,
        description="most frequent words that are kept if the model has no tokenizer; all others become "
        "<unk> (default of ptb:DIR: 10000)",
    )
    window: int = Field(32, ge=2, description="tokens per sample")
    test_fraction: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="share of the samples that is kept for the global test if the source has no test of its "
        "own",
    )
    local_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of each client's samples that is kept for its local test"
    )

    @model_validator(mode="before")
    @classmethod
    def _own_vocabulary(cls, value: Any) -> Any:
        """Takes the source's vocabulary size if the settings give none and the source has one."""
        if isinstance(value, Mapping) and "vocabulary" not in value:
            return {"vocabulary": _own_vocabulary(value.get("source")) or VOCABULARY, **value}
        return value


def _own_vocabulary(source: Any) -> int | None:
    if isinstance(source, str):
        try:
            source = SourceChooser().found("source", source)
        except InputError:  # reading the source raises it again, with the setting's name
            return None
    return getattr(source, "own_vocabulary", None)


class PartitionConfig(PartsSection):
    """Says how samples are dealt to clients; parameters are named as the arguments of Flower Datasets."""

    name: Annotated[Partitioner, Chooser("partitioner", base=Partitioner)] = Field(
        Dirichlet(),
        description="how samples are dealt to clients: iid | dirichlet[:ALPHA] | inner_dirichlet[:ALPHA] | "
        "pathological[:CLASSES] | shard[:SHARDS] | natural (whole documents, topics, ...) | "
        "grouped_natural[:SIZE] | linear, square, exponential (clients differ only in size) | "
        "package.module:Name; values after colons are the first parameters",
    )
    min_samples: int = Field(4, ge=2, description="least number of samples of every client (ours)")

    @property
    def partitioner(self) -> Partitioner:
        """Returns the part that `name` chooses."""
        return self.name

    @classmethod
    def spelled_out(cls, given: Any) -> Any:
        """Expands ``dirichlet:0.1`` to ``{name: dirichlet, alpha: 0.1}``."""
        if isinstance(given, str):
            return cls.choosers()["name"].spelled_out("name", given)
        return {"name": given} if isinstance(given, Partitioner) else super().spelled_out(given)
