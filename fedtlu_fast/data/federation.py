"""The data of a whole federation, from whatever source the settings name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.dealing import Attribute, deal
from fedtlu_fast.data.documents import Document, load_parts
from fedtlu_fast.data.hub.documents import load_text_hub
from fedtlu_fast.data.images import image_samples
from fedtlu_fast.data.population import (
    ArrayPopulation,
    Batch,
    Indices,
    Population,
    Samples,
    Shares,
    count,
    digest,
)
from fedtlu_fast.data.sources.arrays import load_arrays
from fedtlu_fast.data.sources.ptb import load_ptb
from fedtlu_fast.data.sources.synthetic import TEST_CLIENTS, TEST_SAMPLES, SyntheticPopulation
from fedtlu_fast.data.splits import Origin, announce
from fedtlu_fast.data.tagging import TaggedSamples, tag_samples
from fedtlu_fast.data.texts import TextSamples, text_samples
from fedtlu_fast.data.tokenizing import (
    LineTokenizer,
    PretrainedTokenizer,
    TokenizerLike,
    WordTokenizer,
    windows,
)
from fedtlu_fast.data.words import boundary
from fedtlu_fast.errors import InputError, choice, nearest
from fedtlu_fast.randomness import generator
from fedtlu_fast.wording import ALL_SETTINGS

TASKS = {
    "pydoc": ("language_modelling",),
    "text": ("language_modelling",),
    "ptb": ("language_modelling",),
    "hf": ("language_modelling", "tagging", "image_classification", "text_classification"),
    "pycode": ("tagging",),
    "udpos": ("tagging",),
    "digits": ("image_classification",),
    "cifar10": ("image_classification",),
    "cifar100": ("image_classification",),
    "images": ("image_classification",),
    "topics": ("text_classification",),
    "texts": ("text_classification",),
    "synthetic": ("classification",),
    "arrays": ("language_modelling", "classification"),
}
"""What each kind of source is for."""

FORMS = {
    "text": "text:PATH",
    "ptb": "ptb:DIR",
    "hf": "hf:NAME[:CONFIG][@REVISION]",
    "udpos": "udpos:PATH",
    "cifar10": "cifar10:PATH",
    "cifar100": "cifar100:PATH",
    "images": "images:DIR",
    "texts": "texts:PATH",
    "arrays": "arrays:DIR",
}
"""How a kind of source is written that is not complete by its name."""

WHAT = {"tagging": "sentences", "image_classification": "images", "text_classification": "texts"}
"""What samples are cut from; text for language modelling."""


@dataclass(frozen=True)
class FederatedData:
    """The clients, and what a model for their data looks like.

    Attributes:
        population: who holds what.
        inputs: numbers (classification, images) or tokens in one sample.
        outputs: number of classes, token ids or tags: what a model chooses among.
        attributes: of the samples, such as the topic each is from, where they are known; a partition goes
            by the first.
        labels: their names: tags, what images show, what texts are about.
        vocabulary: number of token ids that a model for labels reads.
        padding: the token id that fills up its samples.
        pixels: means and standard deviations of the channels of images, C of either.
        public: what the pre-training has instead of the clients, if there is one.
        origin: which entries of the source were read as what.
    """

    population: Population
    inputs: int
    outputs: int
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    vocabulary: int = 0
    padding: int = 0
    pixels: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    public: Samples | None = None
    origin: Origin | None = None


def load_federation(config: RunConfig) -> FederatedData:
    """Opens, or reads and deals, the data that the settings describe.

    Raises:
        InputError: the source cannot be read, does not fit the task, or holds too little for so many
            clients.
    """
    kind, _, rest = config.data.source.partition(":")
    if kind not in TASKS:
        fitting = [FORMS.get(name, name) for name, tasks in TASKS.items() if config.task in tasks]
        expected = f"one of {choice(fitting)}, for task={config.task}"
        fix = f"{ALL_SETTINGS} has those of all tasks."
        raise InputError("data.source", config.data.source, expected, fix, nearest(kind, TASKS))
    if config.task not in TASKS.get(kind, (config.task,)):
        expected = f"{' or '.join(TASKS[kind])}, for which data.source={config.data.source} is"
        raise InputError("task", config.task, expected)
    if config.pretraining.epochs and kind in ("synthetic", "arrays"):
        raise InputError("pretraining.epochs", config.pretraining.epochs, f"0 with data.source={kind}")
    if kind == "synthetic":
        return _synthetic(config)
    if kind == "arrays" and rest:
        return _arrays(config, Path(rest).expanduser())
    if config.task == "tagging":
        return _tokens(config, tag_samples(config))
    if config.task == "text_classification":
        return _tokens(config, text_samples(config))
    if config.task == "image_classification":
        return _images(config)
    reader = {"ptb": _read_ptb, "hf": _read_hub}.get(kind) if rest else None
    return _text(config, *(reader(config, rest) if reader else _read_text(config)))


def _synthetic(config: RunConfig) -> FederatedData:
    tests = [f"{TEST_CLIENTS} clients that take part in no round"]
    return FederatedData(
        population=SyntheticPopulation(config.data, config.clients, config.seed),
        inputs=config.data.synthetic.features,
        outputs=config.data.classes,
        origin=announce("samples", TEST_CLIENTS * TEST_SAMPLES, tests),
    )


def _arrays(config: RunConfig, folder: Path) -> FederatedData:
    outputs = config.data.vocabulary if config.task == "language_modelling" else config.data.classes
    population = load_arrays(folder, config.task, outputs)
    if population.clients < config.clients:
        raise InputError("clients", config.clients, f"at most {population.clients}, those in {folder}")
    inputs = population.pool[0].shape[1] - (config.task == "language_modelling")
    if config.task == "language_modelling" and inputs != config.data.window:
        raise InputError("data.window", config.data.window, f"{inputs}, as in {folder}")
    names = ("samples",) if config.task == "language_modelling" else ("features", "labels")
    tests, train = ([f"{prefix}{name}.npy" for name in names] for prefix in ("test_", ""))
    origin = announce("samples", count(population.test), tests, train=train)
    return FederatedData(population, inputs, outputs, origin=origin)


def _read_text(config: RunConfig) -> tuple[list[Document], list[str], TokenizerLike, Origin]:
    """What to train on, texts to test on, the tokenizer, and where they are from."""
    found = load_parts(config.data.source, config.data.unpacked_limit)
    if found.test is None:
        train, tests = _split(found.train, config.data.test_fraction)
    else:
        train, tests = found.train, [document.text for document in found.test]
    return train, tests, _tokenizer(config, train, WordTokenizer), found.origin


def _read_ptb(config: RunConfig, location: str) -> tuple[list[Document], list[str], TokenizerLike, Origin]:
    found = load_ptb(location)
    tests = [document.text for document in found.test or ()]
    return found.train, tests, _tokenizer(config, found.train, LineTokenizer), found.origin


def _read_hub(config: RunConfig, location: str) -> tuple[list[Document], list[str], TokenizerLike, Origin]:
    found = load_text_hub(location)
    train, tests = found.train, [found.test or ""]
    if found.test is None:
        train, tests = _split(found.train, config.data.test_fraction, lines=found.prepared)
    words = LineTokenizer if found.prepared else WordTokenizer
    return train, tests, _tokenizer(config, train, words), found.origin


def _tokenizer(
    config: RunConfig, train: Sequence[Document], words: type[WordTokenizer | LineTokenizer]
) -> TokenizerLike:
    """The one that the pre-trained model brings, or a vocabulary of our own."""
    if config.model.pretrained:
        return PretrainedTokenizer(config.model.pretrained)
    return words((document.text for document in train), config.data.vocabulary)


def _text(
    config: RunConfig,
    documents: list[Document],
    tests: list[str],
    tokenizer: TokenizerLike,
    origin: Origin,
) -> FederatedData:
    """Tokenizes, cuts and deals text."""
    length = config.data.window
    train = [windows(tokenizer.encode(document.text), length) for document in documents]
    test = torch.cat([windows(tokenizer.encode(text), length) for text in tests])
    sources = np.repeat(np.arange(len(train)), [len(part) for part in train])
    attributes = {"source": Attribute(sources, tuple(document.name for document in documents))}
    population, public = _dealt(config, (torch.cat(train),), (test,), attributes)
    return FederatedData(
        population=population,
        inputs=length,
        outputs=len(tokenizer),
        attributes=attributes,
        public=public,
        origin=origin,
    )


def _tokens(config: RunConfig, found: TaggedSamples | TextSamples) -> FederatedData:
    """Deals tokens with labels."""
    population, public = _dealt(config, found.train, found.test, found.attributes)
    return FederatedData(
        population=population,
        inputs=found.train[0].shape[1],
        outputs=len(found.labels),
        attributes=found.attributes,
        labels=found.labels,
        vocabulary=found.vocabulary,
        padding=found.padding,
        public=public,
        origin=found.origin,
    )


def _images(config: RunConfig) -> FederatedData:
    """Reads and deals labelled images."""
    found = image_samples(config)
    population, public = _dealt(config, found.train, found.test, found.attributes)
    return FederatedData(
        population=population,
        inputs=found.train[0][0].numel(),
        outputs=len(found.labels),
        attributes=found.attributes,
        labels=found.labels,
        pixels=found.pixels,
        public=public,
        origin=found.origin,
    )


def _dealt(
    config: RunConfig, pool: Batch, test: Batch, attributes: Mapping[str, Attribute]
) -> tuple[Population, Samples | None]:
    """The clients, and what is set aside before."""
    public = _public_rows(config, len(pool[0]))
    rows = np.setdiff1d(np.arange(len(pool[0])), public)
    _check_enough(config, len(rows), len(test[0]))
    private = {name: replace(own, codes=own.codes[rows]) for name, own in attributes.items()}
    shares, own_tests = (Shares(rows[part.rows], part.starts) for part in deal(config, private))
    held = [part[client] for client in range(config.clients) for part in (shares, own_tests)]
    population = ArrayPopulation(
        pool=pool,
        shares=shares,
        own_tests=own_tests,
        test=test,
        fingerprint=digest([*(part.numpy() for part in (*pool, *test)), *held]),
    )
    return population, Samples(pool, public) if len(public) else None


def _public_rows(config: RunConfig, samples: int) -> Indices:
    """Which of the training samples no client gets, because the pre-training has them; ascending."""
    settings = config.pretraining
    if not settings.epochs:
        return np.empty(0, np.int64)
    order = generator(settings.seed, "public samples").permutation(samples)
    return np.sort(order[: max(1, round(settings.share * samples))])


def _split(
    documents: Sequence[Document], test_fraction: float, *, lines: bool = False
) -> tuple[list[Document], list[str]]:
    """Documents' beginnings, to train on, and their ends, to test on, cut between words or lines."""
    train, test = [], []
    for document in documents:
        text, cut = document.text, int(len(document.text) * (1 - test_fraction))
        cut = (text.find("\n", cut) + 1 or len(text)) if lines else boundary(text, cut)
        train.append(Document(document.name, text[:cut]))
        test.append(text[cut:])
    return train, test


def _check_enough(config: RunConfig, samples: int, tests: int) -> None:
    clients, least, window = config.clients, config.partition.min_samples, config.data.window
    what = WHAT.get(config.task, "text")
    size, shorter = (f", of {window} tokens each", ", a shorter window") if what != "images" else ("", "")
    if samples < clients * least or not tests:
        raise InputError(
            "data.source",
            config.data.source,
            f"{what} for {clients * least} samples ({clients} clients of {least} or more) and a test; "
            f"it gives {samples} to train on and {tests} to test{size}",
            f"Use fewer clients{shorter} or more {what}.",
        )
