"""The data of a whole federation, from whatever source the settings name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.arrays import load_arrays
from fedtlu_fast.data.dealing import Attribute, deal
from fedtlu_fast.data.population import ArrayPopulation, Population, digest
from fedtlu_fast.data.sources import Document, load_documents
from fedtlu_fast.data.synthetic import SyntheticPopulation
from fedtlu_fast.data.tokenizing import PretrainedTokenizer, TokenizerLike, WordTokenizer, windows
from fedtlu_fast.errors import InputError


@dataclass(frozen=True)
class FederatedData:
    """The clients, and what a model for their data looks like.

    Attributes:
        population: who holds what.
        inputs: numbers (classification) or tokens (language modelling) in one sample.
        outputs: number of classes, or of token ids.
        attributes: of the samples, such as the topic each is from, where they are known; a partition goes
            by the first.
    """

    population: Population
    inputs: int
    outputs: int
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


def load_federation(config: RunConfig) -> FederatedData:
    """Opens, or reads and deals, the data that the settings describe.

    Raises:
        InputError: the source cannot be read, does not fit the task, or holds too little for so many
            clients.
    """
    kind, _, rest = config.data.source.partition(":")
    if kind == "synthetic":
        return _synthetic(config)
    if kind == "arrays" and rest:
        return _arrays(config, Path(rest).expanduser())
    return _text(config)


def _synthetic(config: RunConfig) -> FederatedData:
    _check_task(config, "classification")
    return FederatedData(
        population=SyntheticPopulation(config.data, config.clients, config.seed),
        inputs=config.data.synthetic.features,
        outputs=config.data.classes,
    )


def _arrays(config: RunConfig, folder: Path) -> FederatedData:
    outputs = config.data.vocabulary if config.task == "language_modelling" else config.data.classes
    population = load_arrays(folder, config.task, outputs)
    if population.clients < config.clients:
        raise InputError("clients", config.clients, f"at most {population.clients}, those in {folder}")
    inputs = population.pool[0].shape[1] - (config.task == "language_modelling")
    if config.task == "language_modelling" and inputs != config.data.window:
        raise InputError("data.window", config.data.window, f"{inputs}, as in {folder}")
    return FederatedData(population, inputs, outputs)


def _text(config: RunConfig) -> FederatedData:
    """Reads, tokenizes, cuts and deals text."""
    _check_task(config, "language_modelling")
    documents = load_documents(config.data.source)
    halves = [_split(document, config.data.test_fraction) for document in documents]
    tokenizer: TokenizerLike = (
        PretrainedTokenizer(config.model.pretrained)
        if config.model.pretrained
        else WordTokenizer((train for train, _ in halves), config.data.vocabulary)
    )
    length = config.data.window
    train = [windows(tokenizer.encode(text), length) for text, _ in halves]
    test = torch.cat([windows(tokenizer.encode(text), length) for _, text in halves])
    samples = torch.cat(train)
    sources = np.repeat(np.arange(len(train)), [len(part) for part in train])
    _check_enough(config, len(samples), len(test))
    attributes = {"source": Attribute(sources, tuple(document.name for document in documents))}
    shares, own_tests = deal(config, attributes)
    held = [part[client] for client in range(config.clients) for part in (shares, own_tests)]
    population = ArrayPopulation(
        pool=(samples,),
        shares=shares,
        own_tests=own_tests,
        test=(test,),
        fingerprint=digest([samples.numpy(), test.numpy(), *held]),
    )
    return FederatedData(
        population=population,
        inputs=length,
        outputs=len(tokenizer),
        attributes=attributes,
    )


def _check_task(config: RunConfig, task: str) -> None:
    if config.task != task:
        raise InputError("task", config.task, f"{task}, for which data.source={config.data.source} is")


def _split(document: Document, test_fraction: float) -> tuple[str, str]:
    """A document's beginning, to train on, and its end, to test on, cut at white space."""
    cut = int(len(document.text) * (1 - test_fraction))
    while cut < len(document.text) and not document.text[cut].isspace():
        cut += 1
    return document.text[:cut], document.text[cut:]


def _check_enough(config: RunConfig, samples: int, tests: int) -> None:
    needed = config.clients * config.partition.min_samples
    if samples < needed or not tests:
        raise InputError(
            "data.source",
            config.data.source,
            f"text for {needed} samples ({config.clients} clients of {config.partition.min_samples} or more) "
            f"and a test; it gives {samples} to train on and {tests} to test, "
            f"of {config.data.window} tokens each",
            "Use fewer clients, a shorter window or more text.",
        )
