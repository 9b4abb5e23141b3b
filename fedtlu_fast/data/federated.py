"""Samples as tensors, and the data of a whole federation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedtlu_fast.data.dealing import Attribute
from fedtlu_fast.data.population import Batch, Population, Samples
from fedtlu_fast.data.splits import Origin


@dataclass(frozen=True)
class Encoded:
    """Samples as tensors, and what a model for them looks like.

    Attributes:
        train: samples that the clients are given.
        test: the global test.
        origin: which entries of the source were read as what.
        inputs: see `FederatedData`.
        outputs: likewise.
        attributes: likewise.
        labels: likewise.
        vocabulary: likewise.
        padding: likewise.
        pixels: likewise.
    """

    train: Batch
    test: Batch
    origin: Origin
    inputs: int
    outputs: int
    attributes: Mapping[str, Attribute]
    labels: tuple[str, ...] = ()
    vocabulary: int = 0
    padding: int = 0
    pixels: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())


@dataclass(frozen=True)
class FederatedData:
    """The clients, and what a model for their data looks like.

    Attributes:
        population: who holds what.
        inputs: numbers (classification, images) or tokens in one sample.
        outputs: number of classes, token ids or tags: what a model chooses among.
        origin: which entries of the source were read as what.
        attributes: of the samples, such as the topic each is from, where they are known; a partition goes
            by the first.
        labels: their names: tags, what images show, what texts are about.
        vocabulary: number of token ids that a model for labels reads.
        padding: the token id that fills up its samples.
        pixels: means and standard deviations of the channels of images, C of either.
        public: what the pre-training has instead of the clients, if there is one.
    """

    population: Population
    inputs: int
    outputs: int
    origin: Origin
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    vocabulary: int = 0
    padding: int = 0
    pixels: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    public: Samples | None = None
