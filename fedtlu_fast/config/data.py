"""Settings: which samples there are, and who gets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    model_validator,
)

from fedtlu_fast.config.parts_section import Chooser, PartsSection
from fedtlu_fast.config.section import Section
from fedtlu_fast.data.partition import Dirichlet, Partitioner
from fedtlu_fast.data.reading import UNPACKED_LIMIT
from fedtlu_fast.errors import InputError

PTB_WORDS = 10_000


class SyntheticConfig(Section):
    """Clients by rule (data.source=synthetic), after FedProx's Synthetic(alpha, beta), arXiv 1812.06127."""

    features: int = Field(60, ge=1, description="numbers in one sample")
    model_variance: float = Field(1.0, ge=0, description="alpha: how far the clients' own models differ")
    input_variance: float = Field(1.0, ge=0, description="beta: how far the clients' inputs differ")
    fewest: int = Field(20, ge=2, description="samples of the client that holds least")
    most: int = Field(40, ge=2, description="samples of the client that holds most; uniform in between")

    @model_validator(mode="after")
    def _most_is_more(self) -> Self:
        if self.most < self.fewest:
            raise InputError("most", self.most, f"at least {self.fewest}, as in fewest")
        return self


class DataConfig(Section):
    """Which samples there are, and how text is cut into them."""

    source: str = Field(
        "pydoc",
        description="pydoc (default) | text:PATH (a UTF-8 file or a directory) | ptb:DIR (ptb.*.txt) | "
        "pycode (tagging, its default) | udpos:PATH (tagging; CoNLL-U) | hf:NAME[:CONFIG][@REVISION] | "
        "digits (images, their default) | cifar10:PATH, cifar100:PATH (binary version or Parquet) | "
        "images:DIR (DIR/[DOMAIN/]LABEL/*) | topics (text classification, its default) | "
        "texts:PATH (DOMAIN.tsv, .csv, .jsonl) | synthetic | "
        "arrays:DIR (.npy files with an index of the clients)",
    )
    vocabulary: int = Field(
        2000,
        ge=8,
        le=2**31 - 1,
        description="words kept if the model brings no tokenizer; others are <unk> (10000 for ptb:DIR)",
    )
    window: int = Field(32, ge=2, description="tokens in one sample")
    image_size: int | None = Field(
        None, ge=1, le=4096, description="side of a square to which images are scaled; null: as they are"
    )
    image_pixels: int = Field(
        2**26,
        ge=1,
        le=2**27,
        description="most pixels of one image file; a small file can say that it holds billions",
    )
    test_fraction: float = Field(0.1, gt=0, lt=1, description="share of each source kept for the global test")
    local_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of each client's samples kept for its own test"
    )
    classes: int = Field(10, ge=2, description="labels of a classification")
    unpacked_limit: int = Field(
        UNPACKED_LIMIT, ge=1, le=2**63 - 1, description="bytes that a compressed file may have when unpacked"
    )
    synthetic: SyntheticConfig = SyntheticConfig()

    @model_validator(mode="before")
    @classmethod
    def _own_vocabulary(cls, value: Any) -> Any:
        """Without a word on it, Penn Treebank keeps its own, to which its rare words were cut already."""
        if isinstance(value, Mapping) and str(value.get("source")).startswith("ptb:"):
            return {"vocabulary": PTB_WORDS, **value}
        return value


class PartitionConfig(PartsSection):
    """How samples are dealt to clients; the parameters' names are those of Flower Datasets' arguments."""

    name: Annotated[Partitioner, Chooser("partitioner")] = Field(
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
