"""The types of encoded data: samples as tensors, and the data of a whole federation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedtlu_fast.data.dealing import Attribute
from fedtlu_fast.data.population import Batch, Population, Samples
from fedtlu_fast.data.splits import Origin


@dataclass(frozen=True)
class Encoded:
    """Samples as tensors, and the numbers that the shape of a model for them depends on.

    Attributes:
        train: the samples that are dealt to the clients.
        test: the global test.
        origin: the entries of the source (files, folders, splits) from which the samples were read.
        inputs: see `FederatedData`.
        outputs: see `FederatedData`.
        attributes: see `FederatedData`.
        labels: see `FederatedData`.
        vocabulary: see `FederatedData`.
        padding: see `FederatedData`.
        pixels: see `FederatedData`.
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
    """The clients with their samples, and the numbers that the shape of a model for them depends on.

    Attributes:
        population: the clients and the samples that they hold.
        inputs: number of numbers (classification, images) or tokens in one sample.
        outputs: number of classes, token ids or tags among which the model chooses.
        origin: the entries of the source (files, folders, splits) from which the samples were read.
        attributes: attributes of the samples by name, such as each sample's topic; may be empty. A partition
            deals by the first unless settings name another.
        labels: names of the labels (tags, classes of images or texts); empty if they have none.
        vocabulary: number of token ids in the samples, where they are tokens with labels.
        padding: the token id that fills up samples.
        pixels: means [C] and standard deviations [C] of the images' channels, in steps of a pixel (0 to 255).
        public: samples that are kept for the pre-training and dealt to no client; None: there are none.
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
