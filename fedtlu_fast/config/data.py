"""Settings: which samples there are, and who gets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from fedtlu_fast.config.section import Section, check_unused
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


PARTITION_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "iid": (),
    "dirichlet": ("by", "alpha", "self_balancing"),
    "inner_dirichlet": ("by", "alpha", "partition_sizes"),
    "pathological": ("by", "num_classes_per_partition", "class_assignment_mode"),
    "shard": ("by", "num_shards_per_partition", "shard_size", "keep_incomplete_shard"),
    "natural": ("by",),
    "grouped_natural": ("by", "group_size", "group_mode"),
    "linear": (),
    "square": (),
    "exponential": (),
}
"""Which settings a partition goes by, besides `min_samples`; the others have to keep their defaults."""


class PartitionConfig(Section):
    """How samples are dealt to clients; names are those of Flower Datasets' arguments."""

    name: Literal[
        "iid",
        "dirichlet",
        "inner_dirichlet",
        "pathological",
        "shard",
        "natural",
        "grouped_natural",
        "linear",
        "square",
        "exponential",
    ] = Field(
        "dirichlet",
        description="iid | dirichlet[:ALPHA] | inner_dirichlet[:ALPHA] | pathological[:CLASSES] | "
        "shard[:SHARDS] | natural (whole documents, topics, ...) | grouped_natural[:SIZE] | linear, square, "
        "exponential (sizes alone differ)",
    )
    by: str | None = Field(
        None, description="what of the samples it goes by, such as label or document; null: the data's first"
    )
    alpha: float = Field(
        0.1, gt=0, description="[inner_]dirichlet: concentration; small is far from IID, large near"
    )
    self_balancing: bool = Field(
        True, description="dirichlet: who holds an equal share already gets nothing of further values"
    )
    partition_sizes: tuple[Annotated[int, Field(ge=2)], ...] | None = Field(
        None, description="inner_dirichlet: samples of each client; null: equal"
    )
    num_classes_per_partition: int = Field(2, ge=1, description="pathological: values of each client")
    class_assignment_mode: Literal["random", "deterministic", "first-deterministic"] = Field(
        "random", description="pathological: random | deterministic (c, c + 1, ...) | first-deterministic"
    )
    num_shards_per_partition: int | None = Field(
        2, ge=1, description="shard: shards of each client; null: as shard_size gives"
    )
    shard_size: int | None = Field(
        None, ge=1, description="shard: samples of one; null: as large as the samples allow"
    )
    keep_incomplete_shard: bool = Field(
        False, description="shard, with shard_size alone: whether the samples left at the end are one too"
    )
    group_size: int = Field(2, ge=1, description="grouped_natural: values in a group")
    group_mode: Literal["allow-smaller", "allow-bigger", "drop-reminder", "strict"] = Field(
        "allow-smaller", description="grouped_natural: what happens to values that do not fill a group"
    )
    min_samples: int = Field(4, ge=2, description="no client gets fewer samples than this (ours)")

    @model_validator(mode="after")
    def _only_what_it_uses(self) -> Self:
        used = {"name", "min_samples", *PARTITION_ARGUMENTS[self.name]}
        check_unused(self, used, f"name={self.name}")
        return self


SHORTHANDS = {
    "pathological": "num_classes_per_partition",
    "shard": "num_shards_per_partition",
    "grouped_natural": "group_size",
}
"""What the number after the partition's name is; after other names it is alpha."""


def partition_shorthand(value: Any) -> Any:
    """``dirichlet:0.1`` for ``{name: dirichlet, alpha: 0.1}``, ``shard:2`` for so many shards, and so on."""
    if not isinstance(value, str):
        return value
    name, _, number = value.partition(":")
    return {"name": name, SHORTHANDS.get(name, "alpha"): number} if number else {"name": name}
